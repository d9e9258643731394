"""Finds keys that a YAML file gives twice, of which YAML readers drop all but the last without a word, and tuples in
braces, which they tear apart."""

import yaml

_MERGE = "tag:yaml.org,2002:merge"


def check_yaml(text: str, source: str) -> None:
    """Raise ValueError if a mapping of a YAML text has a key twice, or holds a tuple in braces.

    Args:
        text: of the file.
        source: its name, for the message.

    Raises:
        ValueError: names the key and its lines.
        yaml.YAMLError: if the text is not YAML.
    """
    _check(yaml.compose(text, Loader=yaml.SafeLoader), source, "", set())


def _check(node: yaml.Node | None, source: str, prefix: str, seen: set[int]) -> None:
    if id(node) in seen:  # an alias may contain itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(item, source, prefix, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if node.flow_style and name.endswith(")") and "(" not in name:
            raise ValueError(
                f"{source}, line {line}: a tuple (...) inside braces is torn apart at its commas; write a list [...]."
            )
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            if name in lines:
                raise ValueError(
                    f"{source}: {prefix}{name} is there twice, in lines {lines[name]} and {line}, and only the last "
                    "would count. Put what belongs to it in one place."
                )
            lines[name] = line
        _check(value, source, f"{prefix}{name}.", seen)
