import pytest

from mandate.workers.cli.output import Output
from mandate.workers.cli.paragraphs import Lines


def test_paragraph_is_wrapped_under_its_first_word_and_links_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    link = "http://127.0.0.1:8233/" + "x" * 90

    Lines(Output()).paragraph(f"watch   {link} and " + "word " * 20, indent=2, hang=8)

    first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert (first, second) == ("  watch", f"          {link}")
    assert third == " " * 10 + "and " + " ".join(["word"] * 17)
    assert fourth == " " * 10 + " ".join(["word"] * 3)


@pytest.mark.parametrize(("is_loud", "err"), [(True, "  mandate show r1\n"), (False, "")])
def test_with_json_only_what_people_must_know_is_told(
    capsys: pytest.CaptureFixture[str], is_loud: bool, err: str
) -> None:
    Lines(Output(as_json=True), is_loud).command("mandate show r1")

    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", err)
