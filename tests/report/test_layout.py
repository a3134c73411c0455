"""The page in a browser: on a desktop and on a telephone only tables may be wider than the window."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mdprop.attacks.threat import Threat
from mdprop.report import write_report
from tests.report.synthetic import THREATS, runs_of, write_curves, write_runs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = """<iframe id="page" src="report/index.html" style="width:{width}px;height:800px"></iframe>
<script>
onload = () => {{
  const page = document.getElementById("page").contentDocument.documentElement;
  const images = [...page.querySelectorAll("img")].filter(image => image.naturalWidth > 0);
  document.title = `${{page.scrollWidth}} of ${{page.clientWidth}}, ${{images.length}} images`;
}};
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_window(folder: Path, width: int) -> None:
    threats = {**THREATS, "strong": Threat(goal="single_target", epsilon=0.1, steps=50)}
    runs = runs_of(seeds=(0, 1))
    write_runs(runs, {"mdprop": ["clean", "clean+25%multi_target"]}, threats)
    for run in runs:
        write_curves(run)
    settings = {"loss": {"name": "multi_similarity", "a_key_that_is_rather_long.and_one_below_it": 0.1}}
    write_report("report", runs, threats, channel_std=[0.2, 0.3], settings=settings, provenance={})
    (folder / "measure.html").write_text(MEASURE.format(width=width))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"]
    flags += ["--allow-file-access-from-files", "--virtual-time-budget=5000"]
    flags.append(f"--user-data-dir={folder}/user")
    address = (folder / "measure.html").as_uri()
    done = subprocess.run([str(CHROMIUM), *flags, address], capture_output=True, text=True, timeout=60)
    found = re.search(r"<title>(\d+) of (\d+), (\d+) images", done.stdout)
    assert found, done.stdout[:500] + done.stderr[-500:]
    assert int(found[1]) <= int(found[2]) == width
    assert int(found[3]) == 5 + 1 + 2  # a family of attacks each, Recall@K, loss and validation
