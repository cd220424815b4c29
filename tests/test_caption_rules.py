"""The filter's rules on captions, each on texts whose correct answer is obvious to a person."""

from pathlib import Path

import caption_rules as rules
import pytest
import yaml

SHIPPED = yaml.safe_load(Path("configs/filter.yaml").read_text())
ENGLISH = (
    "a man and a woman are sitting at a table with a dog in the garden",
    "Vintage Red Leather Chesterfield Sofa",
    "View from Los Angeles to Las Vegas, Nevada",
    "Le Corbusier's house near Rio de Janeiro by Vincent van Gogh",
    "the sun sets over Côte d'Azur, and people met for dinner as the den was closed",
    "Die Hard movie poster from 1988",
    "2015 BMW 320d M Sport 4dr",
    "Der Spiegel magazine cover",
)
FOREIGN = (
    "Ein Mann sitzt mit einer Frau auf dem Balkon und trinkt Kaffee",
    "Une femme est assise dans le jardin avec les enfants",
    "una mujer con un vestido rojo para la fiesta",
    "Il gatto che dorme sono nella casa della nonna",
    "um homem não está em casa com uma mulher",
    "een man zit aan het water voor zijn huis",
    "kobieta na rowerze nie jest w domu",
    "en kvinna är på väg till det röda huset och sjön",
)


@pytest.mark.parametrize("caption", ENGLISH + FOREIGN)
def test_other_languages_are_foreign_and_english_is_not(caption):
    assert (rules.foreign_share(caption) > SHIPPED["max_foreign"]) == (caption in FOREIGN)


def test_latin_share():
    shares = {"dog": 1, "собака": 0, "犬の写真": 0, "ab ди": 0.5, "1234 !?": 1, "": 1, "Äpfel, Œuvre": 1}
    assert {caption: rules.latin_share(caption) for caption in shares} == shares
    assert 0 < rules.latin_share("कुत्ता a") < 0.5


BOILERPLATE = (
    "see www.example.com for more",
    "http://example.com/a",
    "IMG_2041.JPG",
    "image 17",
    "Untitled",
    "DSC-0042",
    "© 2014 all rights reserved",
    "Click here to enlarge",
    "Dog stock photo, royalty free",
)
NO_BOILERPLATE = (
    "a picture of a dog",
    "an image on the wall",
    "a stock car race",
    "dog",
    "she clicks her fingers",
    "jpg",
)


@pytest.mark.parametrize("caption", BOILERPLATE + NO_BOILERPLATE)
def test_the_shipped_boilerplate(caption):
    found = rules.compile_boilerplate(SHIPPED["boilerplate"]).search(caption)
    assert (found is not None) == (caption in BOILERPLATE)


def test_alternatives_in_one_pattern_do_not_reach_into_another():
    found = rules.compile_boilerplate(["^a|b$", "^c$"])
    assert [bool(found.search(text)) for text in ("ax", "xb", "c", "xc", "xax")] == [True, True, True, False, False]
    assert rules.compile_boilerplate([]) is None
