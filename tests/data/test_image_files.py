"""Image files that do not exist are found by listing their folders."""

import pytest
from toy_detectors import make_records

from sgr_d2.data.image_files import require_images


def test_images_that_do_not_exist_are_named(tmp_path, monkeypatch):
    records = make_records(tmp_path, 6)
    require_images(records, "toys")
    monkeypatch.chdir(tmp_path)
    elsewhere = [{"file_name": "000.png"}, {"file_name": "s3://bucket/a.png"}, {"file_name": f"{tmp_path}//001.png"}]
    require_images([*records, *elsewhere], "toys")
    for name in ("001.png", "004.png"):
        (tmp_path / name).unlink()
    text = rf"toys: 3 of 8 image files do not exist: {tmp_path}/001\.png, .*/004\.png, .*//001\.png\. Put them there"
    with pytest.raises(FileNotFoundError, match=text):
        require_images([*records, *elsewhere], "toys")
    with pytest.raises(FileNotFoundError, match=r"toys: 1 of 1 image files do not exist: nowhere/a\.png"):
        require_images([{"file_name": "nowhere/a.png"}], "toys")
