"""The page as a whole, without a browser: it can be built, its endpoints have names, a Space finds what it needs."""

import time
import tomllib
from pathlib import Path

import pytest
import yaml

import app
from regionedit.command_line import load_config
from regionedit.config import AppConfig
from regionedit.web import page
from regionedit.web.uploads import UNUSED, Uploads, uploaded

ROOT = Path(app.__file__).parent
CONFIG = ROOT / app.DEFAULT


def test_a_space_installs_what_pyproject_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["app"]]
    listed = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert sorted(listed) == sorted(wanted)


def test_a_space_finds_its_header():
    header = yaml.safe_load((ROOT / "README.md").read_text().split("---")[1])
    assert (header["sdk"], header["app_file"]) == ("gradio", "app.py")
    assert f"gradio=={header['sdk_version']}" in (ROOT / "requirements.lock").read_text().splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--thresold", "1"], "unknown key"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--mask_source", "nobody"], "no mask source"),
        (["--password_variable", "NOT_SET_ANYWHERE"], "password_variable"),
        (["--examples", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_a_bad_argument_exits_with_2_and_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr("regionedit.web.studio.Studio.warm_up", lambda studio: None)
    try:
        code = app.main(arguments)
    except SystemExit as exit:
        code = exit.code
    error = capsys.readouterr().err
    assert code == 2 and said in error and len(error.strip().splitlines()) == 1


def test_the_page_shows_itself_to_this_machine_alone():
    config = load_config(AppConfig, CONFIG)
    settings = page.launch_settings(config, None)
    assert settings["server_name"] == "127.0.0.1" and settings["share"] is False and settings["auth"] is None
    assert settings["max_file_size"] == "20mb"
    assert page.launch_settings(config, "secret")["auth"]("anybody", "secret")
    assert not page.launch_settings(config, "secret")["auth"]("anybody", "else")


def test_endpoints_have_names_an_uploaded_example_stays_and_another_upload_goes(tmp_path, monkeypatch):
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    monkeypatch.setattr("regionedit.web.studio.Studio.warm_up", lambda studio: None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    started = []
    monkeypatch.setattr(Uploads, "sweep_for_ever", lambda uploads: started.append(uploads))
    made = page.make_page(load_config(AppConfig, CONFIG), tmp_path)
    names = set(made.get_api_info()["named_endpoints"])
    assert names == {"/find_region", "/edit", "/reproduce", "/layers", "/compare", "/batch"}
    client = TestClient(gr.mount_gradio_app(FastAPI(), made, path=""))
    example = (ROOT / "docs" / "examples" / "circle.png").read_bytes()
    kept, deleted = (
        Path(client.post("/gradio_api/upload", files={"files": ("circle.png", data)}).json()[0])
        for data in (example, example + b"another picture")
    )
    (uploads,) = started
    assert {str(kept), str(deleted)} <= uploads.files
    uploads.read(kept)
    uploads.sweep(time.time() + 2 * UNUSED)
    assert kept.read_bytes() == example and not deleted.exists()


def test_picture_and_instruction_are_enough_for_a_program(tmp_path, monkeypatch):
    from gradio_client.utils import construct_args

    monkeypatch.setattr("regionedit.web.studio.Studio.warm_up", lambda studio: None)
    made = page.make_page(load_config(AppConfig, CONFIG), tmp_path)
    parameters = made.get_api_info()["named_endpoints"]["/edit"]["parameters"]
    given = construct_args(parameters, (), {"image": {}, "instruction": "x"})  # the client's and /call/v2's
    assert given == [{}, "x", 0, 0, 0.0, "", None, "auto", "", "", ""]


def test_programs_may_name_uploaded_files_only(tmp_path, monkeypatch):
    served, elsewhere = tmp_path / "served", tmp_path / "elsewhere.png"
    served.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(served))
    for path in (elsewhere, served / "x.png"):
        path.write_bytes(b"x")
    assert uploaded({"path": str(served / "x.png"), "orig_name": "mine.png"}) == (served / "x.png", "mine.png")
    (served / "link.png").symlink_to(elsewhere)
    paths = (elsewhere, "x.png", "../x", served / ".." / "elsewhere.png", served / "link.png")
    for file in (None, {}, str(elsewhere), *({"path": str(path)} for path in paths)):
        with pytest.raises(ValueError, match="not an uploaded file"):
            uploaded(file)
