"""The page of verify --html: one file, the same bytes, whatever the names in it are."""

import re
import shutil
import subprocess
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import onnx_ir as ir
import pytest
from door_tools import listing, mlp_model

import vlmpass
from vlmpass.ir_tools.run import compare_layers, verify
from vlmpass.pages.layer_plots import layer_plots
from vlmpass.pages.layers_page import layers_page
from vlmpass.pages.plots import linear_near_zero, powers

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Page(HTMLParser):
    """Counts tags, keeps texts, and holds what is opened to be closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.links = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def count(self, tag, kind=None):
        return sum(
            each == tag and (kind is None or attrs.get("class") == kind)
            for each, attrs in self.tags
        )


def pair(folder):
    """A model with names that are hostile to a page, and one whose second node is another."""
    model = vlmpass.load(mlp_model(folder, "a.onnx"))
    model.graph[1].outputs[0].name = '</title><script>alert("1")</script>&amp;'
    model.graph[1].name = "<img src=x onerror=alert(1)>"
    vlmpass.save(model, folder / "a.onnx")
    model.graph[1].op_type = "Tanh"
    vlmpass.save(model, folder / "b.onnx")
    return folder / "a.onnx", folder / "b.onnx"


def test_a_page_is_one_file_and_shows_every_value(door, tmp_path):
    one, two = pair(tmp_path)
    code, out, err = door("verify", one, two, "--html", tmp_path / "r.html")
    assert (code, err) == (1, "")
    assert "made by" in out
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.links == []
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert "default-src 'none'" in text
    assert page.count("svg") == 2
    assert page.count("circle") == len(compare_layers(one, two).layers) == 3
    assert [page.count("circle", kind) for kind in ("good", "bad")] == [1, 2]
    assert page.count("path", "reference") == 3
    assert page.count("path", "first") == 2
    assert any('<script>alert("1")</script>&amp;' in each for each in page.texts)
    door("verify", one, two, "--html", tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == text


def test_equal_models_and_those_of_other_inputs_have_a_page(door, tmp_path):
    one, _ = pair(tmp_path)
    assert door("verify", one, one, "--html", tmp_path / "r.html")[0] == 0
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "equal within the tolerance" in page.texts
    assert page.count("circle", "bad") == 0
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] q) => (float[2] y) { y = Abs(q) }'
    ir.save(ir.from_onnx_text(text), tmp_path / "c.onnx")
    assert door("verify", one, tmp_path / "c.onnx", "--html", tmp_path / "r.html")[0] == 1
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "not equal" in page.texts
    assert page.count("svg") == 0


def test_a_page_takes_the_place_of_a_page_only(door, tmp_path):
    one, two = pair(tmp_path)
    mine = tmp_path / "mine.html"
    mine.write_text("<!DOCTYPE html>mine")
    np.savez(tmp_path / "in.npz", x=np.ones((2, 32), np.float32))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for words, said in (
        ((mine,), "--force replaces it"),
        ((one, "--force"), "which stays as it is"),
        ((tmp_path / "a.onnx.data", "--force"), "which stays as it is"),
        ((tmp_path / "in.npz", "--force", "--inputs", tmp_path / "in.npz"), "stays as it is"),
        ((tmp_path, "--force"), "is a folder"),
        ((tmp_path / "no" / "r.html",), "does not exist"),
        ((tmp_path / f"{'x' * 300}.html",), "cannot be"),
        (("-",), "--html takes no '-'"),
    ):
        code, out, err = door("verify", one, two, "--html", *words)
        assert (code, out) == (2, ""), words
        assert said in err
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert door("verify", one, two, "--html", mine, "--force")[0] == 1
    assert b"generator" in mine.read_bytes()


def texts(path):
    """The texts of a plot, and its marks by kind."""
    root = ElementTree.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    marks = {}
    for each in root.iter():
        if each.tag in (f"{space}circle", f"{space}path"):
            assert "var(" not in (each.get("class") or "")
            title = each.find(f"{space}title")
            named = None if title is None else title.text
            marks.setdefault(each.get("class"), []).append((each, named))
    return [each.text for each in root.iter(f"{space}text")], marks


def test_plots_are_files_of_their_own(door, tmp_path):
    one, two = pair(tmp_path)
    folder = tmp_path / "some" / "plots"
    code, out, err = door("verify", one, two, "--plots", folder, "--html", tmp_path / "r.html")
    assert (code, err) == (1, "")
    assert "made by" in out
    assert sorted(path.name for path in folder.iterdir()) == ["error.svg", "range.svg"]
    found = compare_layers(one, two).layers
    said, marks = texts(folder / "error.svg")
    assert said[0] == "error per value, b.onnx against a.onnx"
    assert said[1].startswith("the first that diverges is 1: </title><script>")
    assert {"relative error", "place of the value", "0", "1", "2"} <= {*said}
    points = sorted(marks["good"] + marks["bad"], key=lambda mark: float(mark[0].get("cx")))
    assert [name.split(": ")[1].rsplit(", ", 1)[0] for _, name in points] == [
        each.name for each in found
    ]
    assert [len(marks[kind]) for kind in ("good", "bad", "first")] == [1, 2, 1]
    heights = [float(mark.get("cy")) for mark, _ in points]
    errors = [each.difference.max_rel for each in found]
    assert sorted(range(3), key=lambda at: -heights[at]) == sorted(range(3), key=errors.__getitem__)
    said, marks = texts(folder / "range.svg")
    assert {"value", "place of the value"} <= {*said}
    assert [len(marks[kind]) for kind in ("reference", "good", "bad")] == [3, 1, 2]
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.count("circle") == len(points)  # drawn by the same code
    before = [path.read_bytes() for path in sorted(folder.iterdir())]
    assert b"var(" not in before[0]
    door("verify", one, two, "--plots", folder)
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == before


def test_names_that_no_file_of_xml_holds_are_drawn(tmp_path):
    found = compare_layers(*pair(tmp_path))
    named = replace(found.layers[1], name="\x01\x1b\ud800 & <b>" + "x" * 300)
    odd = replace(found, layers=(found.layers[0], named, found.layers[2]))
    for name, text in layer_plots(odd, "a&", "\x02<b").items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        said, _ = texts(tmp_path / name)
        assert said[0].endswith("\ufffd<b against a&")
        assert all(len(each) <= 130 for each in said)


def test_plots_of_nothing_are_empty_and_take_the_place_of_others(door, tmp_path):
    one, two = pair(tmp_path)
    assert door("verify", one, two, "--plots", tmp_path / "p")[0] == 1
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] q) => (float[2] y) { y = Abs(q) }'
    ir.save(ir.from_onnx_text(text), tmp_path / "c.onnx")
    assert door("verify", one, tmp_path / "c.onnx", "--plots", tmp_path / "p")[0] == 1
    for name in ("error.svg", "range.svg"):
        said, marks = texts(tmp_path / "p" / name)
        assert said[:2] == [f"{name[:5]} per value, c.onnx against a.onnx", "no value is in both"]
        assert {*marks} == {"grid"}


def test_a_folder_of_plots_that_cannot_be_is_refused_and_nothing_written(door, tmp_path):
    one, two = pair(tmp_path)
    mine, file = tmp_path / "mine", tmp_path / "file"
    mine.mkdir()
    (mine / "range.svg").write_text("<svg/>")
    file.write_text("")
    sources = tmp_path / "sources"
    sources.mkdir()
    np.savez(sources / "error.svg.npz", x=np.ones((2, 32), np.float32))
    given = (sources / "error.svg.npz").rename(sources / "error.svg")
    before = listing(tmp_path)
    for words, said in (
        ((mine,), "range.svg exists; --force replaces it"),
        ((file,), "is no folder"),
        ((file / "below",), "cannot be made"),
        ((tmp_path / ("x" * 300),), "cannot be made"),
        ((sources, "--force", "--inputs", given), "stays as it is"),
        (("-",), "--plots takes no '-'"),
    ):
        code, out, err = door("verify", one, two, "--plots", *words)
        assert (code, out) == (2, ""), words
        assert said in err.replace("\n  ", "; ")
        assert err.count("error:") == 1
        assert listing(tmp_path) == before
    code, _, err = door("verify", one, tmp_path / "none.onnx", "--plots", tmp_path / "new")
    assert code == 2
    assert not (tmp_path / "new").exists()
    assert door("verify", one, two, "--plots", mine, "--force")[0] == 1


def test_many_values_make_a_plot_of_bounded_size(tmp_path):
    found = compare_layers(*pair(tmp_path))
    many = type(found)(found.layers * 5000, 1, None, 0, 0.0)
    page = Page(layers_page(verify(*pair(tmp_path)), many, "a", "b"))
    assert page.count("circle") <= 1200
    assert page.count("circle", "bad") > 0
    assert any("The first 5,000 of 15,000" in each for each in page.texts)


@pytest.mark.parametrize("seed", range(20))
def test_axes_hold_every_number(seed):
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal(20) * 10.0 ** rng.integers(-30, 38, 20)
    numbers[rng.random(20) < 0.3] = 0
    numbers[rng.random(20) < 0.1] = np.inf
    for axis, given in (
        (powers("t", np.abs(numbers)), np.abs(numbers)),
        (linear_near_zero("t", numbers), numbers),
        (powers("t", []), [0.0]),
        (linear_near_zero("t", [np.nan, -np.inf]), [0.0]),
    ):
        assert len(axis.ticks) <= 20
        assert list(axis.ticks) == sorted(set(axis.ticks))
        places = [axis.y(number) for number in sorted(given)]
        assert places == sorted(places, reverse=True)
        assert all(0 <= place <= 300 for place in (*places, axis.y(np.nan), axis.y(np.inf)))


def rows(png):
    """The rows of pixels of a PNG, filtered as they are."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, width, height = 8, b"", 0, 0
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        chunk = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, height = (int.from_bytes(chunk[i : i + 4], "big") for i in (0, 4))
        data += chunk if kind == b"IDAT" else b""
        at += size + 12
    raw = zlib.decompress(data)
    assert len(raw) % height == 0
    return width, [raw[i : i + len(raw) // height] for i in range(0, len(raw), len(raw) // height)]


@pytest.mark.parametrize(("what", "lines"), [("r.html", 200), ("p/error.svg", 150)])
def test_a_browser_shows_it(door, tmp_path, what, lines):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no browser is installed")
    door("verify", *pair(tmp_path), "--html", tmp_path / "r.html", "--plots", tmp_path / "p")
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1040,1300"]
    page = (tmp_path / what).as_uri()
    told = {"capture_output": True, "timeout": 120, "cwd": tmp_path}
    dom = subprocess.run([*words, "--dump-dom", page], check=True, **told).stdout.decode()
    assert len(re.findall("<circle", dom)) == 3
    assert "<script" not in dom
    subprocess.run([*words, f"--screenshot={tmp_path / 's.png'}", page], check=True, **told)
    width, found = rows((tmp_path / "s.png").read_bytes())
    assert (width, len(found)) == (1040, 1300)
    assert sum(any(row[1:]) for row in found) > lines  # rows that are not as the one above
