"""The pieces of a stream make up exactly the whole."""

from hypothesis import given
from hypothesis import strategies as st
from transcribe.api.responses import Deltas


@given(st.lists(st.text(alphabet=" \n\tåb.")))
def test_deltas_add_up_to_the_stripped_text(texts: list[str]) -> None:
    deltas = Deltas()
    assert "".join(deltas.add(text) for text in texts) == "".join(texts).strip()


def test_a_delta_is_sent_as_soon_as_it_can_be() -> None:
    deltas = Deltas()
    assert [deltas.add(text) for text in (" Hej ", " ", "på dig. ", " Hej då.")] == [
        "Hej",
        "",
        "  på dig.",
        "  Hej då.",
    ]
