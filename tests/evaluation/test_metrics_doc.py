import re
from pathlib import Path

import numpy as np

DOC = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_examples_of_the_document_run(capsys):
    text = DOC.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    scope = {}
    for block in blocks:
        exec(block, scope)
    single, mean = capsys.readouterr().out.splitlines()
    assert single.startswith("TokenSemantics(S=")
    figures = eval(mean, {"nan": np.nan})
    assert figures["num_images"] == 1
    # Every key that the meter returns stands in the document, if only as a pattern.
    for key in figures:
        base = re.sub(r"_[CI]$", "_*", key) if key.startswith("num_") else key.replace("_normalized", "")
        assert f"`{base}`" in text, key
