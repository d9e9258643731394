"""Names in plots as they are."""


def plain(text: str) -> str:
    r"""``text`` for matplotlib, which would read what stands between two dollar signs as a formula.

    >>> plain("$a$")
    '\\$a\\$'
    """
    return text.replace("$", r"\$")
