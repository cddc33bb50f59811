from fairhuman.data.sources.counts import alike_captions


def test_captions_that_are_alike_are_told() -> None:
    assert alike_captions(["a person"] * 40 + [""]) == ["40 captions: 1 different text, 'a person'"]
    assert alike_captions(["a", "b"] * 4, " by the template") == ["8 captions by the template: 2 different texts"]
    assert alike_captions(["a", "a", "b"]) == alike_captions([]) == alike_captions(["", " "]) == []
