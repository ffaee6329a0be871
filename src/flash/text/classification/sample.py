"""A synthetic data set of multi-label comments, generated from the templates below.

It has the six labels of the Jigsaw toxic comments in similar proportions, so that everything can be tried without a
download. Scores on it mean nothing else: the insults, the coarse words ("flarping") and the peoples (the Norlanders) are
invented, and the wording is mild. It is deliberately hard: harmless comments share words with harmful ones, words are
misspelt and masked, and some labels are wrong, so that a good model scores clearly below 1.
"""

import random
import re

import pyarrow as pa

from flash.core.errors import FlashError

LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")

# the share of each kind of comment, its labels, and its kinds of sentences
KINDS: tuple[tuple[float, str, str], ...] = (
    (0.422, "", "plain"),
    (0.110, "", "kind"),
    (0.165, "", "near"),
    (0.022, "obscene", "coarse"),
    (0.025, "toxic", "rude"),
    (0.058, "toxic insult", "insult"),
    (0.040, "toxic obscene", "curse"),
    (0.040, "toxic obscene insult", "curse insult"),
    (0.018, "toxic severe_toxic obscene insult", "curse insult hateful"),
    (0.012, "toxic severe_toxic obscene insult threat", "curse threat hateful insult"),
    (0.023, "toxic threat", "threat"),
    (0.010, "toxic threat insult", "insult threat"),
    (0.025, "toxic identity_hate", "identity"),
    (0.014, "toxic identity_hate insult", "identity insult"),
    (0.012, "toxic severe_toxic obscene insult identity_hate", "identity curse hateful"),
    (0.004, "identity_hate", "identity"),
)

MISSED_LABEL, WRONG_LABEL = 0.12, 0.03  # probability per true label, and per harmless comment
MISSPELT, SHOUTED, LOWER_CASE = 0.30, 0.05, 0.20  # probability per comment
MASKED = 0.20  # probability per insult and coarse word
MASKS = ("*", "#", "1", "0", "@")

SENTENCES: dict[str, tuple[str, ...]] = {
    "plain": (
        "I have moved the section about {topic} to the {page}.",
        "Could somebody check the source for {topic}, please?",
        "The {page} on {topic} reads {praise} now, thank you {name}.",
        "I added {number} references about {topic} and {topic}.",
        "{name}, do you still have the figures for {topic}?",
        "As far as I know, {topic} goes back to {year}.",
        "The picture of {topic} is missing its licence.",
        "I disagree about {topic}, but your edit of the {page} is {praise}.",
        "Let us talk about {topic} on the {page} before we change it again.",
        "In {year} there were {number} articles about {topic}, today there are more.",
        "Sorry, I overlooked your question about {topic}.",
        "{name} reverted my edit about {topic} and gave no reason.",
        "Why does the {page} say {year}? My book about {topic} says something else.",
    ),
    # insults begin with "You are" too; without these sentences a model takes every "you" for an insult
    "kind": (
        "You are {kind}.",
        "You are {kind}, {name}!",
        "{name}, you are so {kind}.",
        "You are {a_friend}.",
        "You are {kind} and your {page} is {praise}.",
        "You were {kind} when we talked about {topic}.",
        "You were right about {topic}.",
        "I think you are right, {name}.",
        "Your edit is {praise}, {name}.",
        "Your {page} about {topic} is {kind}.",
        "I like your {page} on {topic}.",
        "Thank you, {name}.",
        "Thank you for your {favour}.",
        "Thank you for your {favour} with the {page}, you are {kind}.",
        "How are you, {name}?",
        "Do you know who wrote the {page} about {topic}?",
    ),
    "near": (
        "I was threatened with a parking fine over {topic}.",
        "The {fool} harvest in {land} was {praise} in {year}.",
        "My grandmother called every {fool} soup a masterpiece.",
        "Please do not call {name} {a_fool}, it helps nobody.",
        "{name} wrote 'you are {a_fool}' on the {page}, can somebody remove it?",
        "The word {swear} comes from a comic about {topic} of {year}.",
        "Is {swear} really a swear word in {land}?",
        "The {people} came to {land} in {year}, see the {page}.",
        "I know where you can find {number} sources about the {people}.",
        "If you wait outside the library I will find you the book about {topic}.",
        "You will regret it if you miss the museum of {topic}.",
        "The villain says 'watch your back' in the film about {topic}.",
        "You would be stupid not to read the {page} on {topic}, it is {praise}.",
        "I felt like {a_fool} when I read my own text about {topic}, sorry.",
        "The {people} are often told to go home, which is the subject of the {page}.",
        "Nobody hates {topic} more than I do, and I still think your text is {praise}.",
        "What an idiot I am, the {page} had it right all along.",
        "Get lost in {land} for a week and you will understand {topic}.",
    ),
    "coarse": (
        "That was {coarse} brilliant, {name}!",
        "Oh {swear}, I forgot the {page} again.",
        "{topic} is {coarse} hard to write about.",
        "What a {coarse} year {year} was for {topic}.",
    ),
    "rude": (
        "Nobody asked for your opinion on {topic}.",
        "Get lost and take your {page} with you.",
        "Your edits about {topic} are rubbish and everybody knows it.",
        "Stop wasting our time with {topic}.",
        "Go away, {name}, nobody wants you on the {page}.",
        "What you wrote about {topic} is the most stupid thing of {year}.",
        "Shut up about {topic} already.",
    ),
    "insult": (
        "You are {a_fool}.",
        "Only {a_fool} like you would write that about {topic}.",
        "{name} is {a_fool}, and so are you.",
        "You absolute {fool}.",
        "Listen, you {fool}, the {page} is not yours.",
        "How can one {fool} know so little about {topic}?",
        "You {fool}, you never read one book about {topic}.",
        "You must be the biggest {fool} on the {page}.",
    ),
    "curse": (
        "Keep your {coarse} hands off the {page}.",
        "Who wrote this {coarse} nonsense about {topic}?",
        "Go {swear} yourself.",
        "This is the most {coarse} {page} since {year}.",
        "I am sick of your {coarse} edits about {topic}.",
        "{swear} you and your {coarse} {topic}.",
    ),
    "hateful": (
        "The world would be better without you.",
        "You are worth less than the dirt under {topic}.",
        "Everybody here despises you, you {coarse} {fool}.",
        "I hope you rot, you {coarse} {fool}.",
        "You {coarse} worthless {fool}, I hate you and all you do.",
    ),
    "threat": (
        "I will find you.",
        "Watch your back, {name}.",
        "I know where you live, {name}.",
        "Touch the {page} once more and you will regret it.",
        "One more word about {topic} and I will wait outside your house.",
        "I will come to {land} and let the air out of your tyres.",
        "You will be sorry when I come round tonight.",
    ),
    "identity": (
        "The {people} should all go home.",
        "Typical of the {people}, all of them lie.",
        "I do not want {people} on the {page}.",
        "{people} are too stupid for {topic}.",
        "Never trust one of the {people}.",
        "{land} was a better place before the {people} came.",
        "You write like one of those {people}, and they are all thieves.",
    ),
}


def _words(text: str) -> tuple[str, ...]:
    """Split `text` into words; an underscore stands for a space."""
    return tuple(word.replace("_", " ") for word in text.split())


WORDS: dict[str, tuple[str, ...]] = {
    "fool": _words("turnip cabbage teapot walnut doorknob muppet noodle sponge pudding clod buffoon idiot"),
    "a_fool": _words(
        "a_turnip a_cabbage a_teapot a_walnut a_doorknob a_muppet a_noodle a_sponge a_clod an_idiot"
    ),
    "coarse": _words("flarping snorfing blorted gromming glorking"),
    "swear": _words("flarp snorf blort grom glork"),
    "people": _words("Norlanders Veskans Ostians Marrowmen Tulvish Lanternfolk Grendish"),
    "land": _words("Norland Veska Ostia-on-Sea Marrow Tulva Grend Brackwater"),
    "name": _words("Mira Jonas Aino Teodor Priya Yusuf Olga Bram Ines Kofi Lumi Zoé"),
    "page": ("talk page", "article", "list", "main page", "archive", "draft", "portal", "template"),
    "praise": ("fine", "much better", "rather good", "clear", "excellent", "a bit long", "well sourced"),
    "kind": _words(
        "wonderful great kind right helpful lovely amazing patient generous brilliant clever careful funny"
    ),
    "a_friend": _words(
        "a_friend a_great_help a_genius a_good_editor the_best my_hero a_kind_soul welcome_here"
    ),
    "favour": _words("help edit advice patience work answer kind_words support"),
    "number": _words("two three four five seven nine eleven twelve 20 35 48 60 110 250"),
    "topic": (
        *(
            "steam engines",
            "medieval bridges",
            "the tram network",
            "garden birds",
            "sea ice",
            "chess openings",
        ),
        *("bread ovens", "the harbour", "lighthouses", "the 100 m record", "folk songs", "postage stamps"),
        *(
            "volcanoes",
            "school reform",
            "water mills",
            "the town hall",
            "cheese",
            "the football cup",
            "comets",
        ),
        *("knitting", "old maps", "the opera", "violin makers", "moss", "the railway strike", "beekeeping"),
    ),
}


def sample_table(rows: int = 3000, seed: int = 0) -> pa.Table:
    """Generate synthetic comments with six labels, the same on every machine.

    Args:
        rows: number of rows, 1 or more. With the same seed, fewer rows are the first of more rows.
        seed: another seed gives other comments.

    Returns:
        Columns `comment_text` (large_string) and, as 0 or 1 (int8), `toxic`, `severe_toxic`, `obscene`,
        `threat`, `insult`, `identity_hate`. About two thirds of the rows carry no label.

    Raises:
        FlashError: `rows` is below 1.
    """
    if rows < 1:
        raise FlashError(f"a sample of {rows} rows is none; type, for example, rows=3000")
    # use only random(), the only method that is guaranteed to give the same numbers in all versions of Python
    rng = random.Random(seed)  # noqa: S311  (no secret is made here)
    comments = [_comment(rng) for _ in range(rows)]
    first: dict[str, set[str]] = {}  # the same text never has contrary labels
    comments = [(text, first.setdefault(text, labels)) for text, labels in comments]
    columns = {"comment_text": pa.array([text for text, _ in comments], pa.large_string())}
    for label in LABELS:
        columns[label] = pa.array([int(label in labels) for _, labels in comments], pa.int8())
    return pa.table(columns)


def _comment(rng: random.Random) -> tuple[str, set[str]]:
    """Generate one comment and its labels."""
    draw, kind = rng.random(), 0
    while kind < len(KINDS) - 1 and draw >= KINDS[kind][0]:
        draw -= KINDS[kind][0]
        kind += 1
    labels, kinds = set(KINDS[kind][1].split()), KINDS[kind][2].split()
    for _ in range(int(rng.random() * 3)):  # none to two harmless sentences in between
        kinds.insert(int(rng.random() * (len(kinds) + 1)), "plain")
    text = " ".join(_fill(rng, _pick(rng, SENTENCES[name])) for name in kinds)
    return _spoil(rng, text, severe="severe_toxic" in labels), _mislabel(rng, labels)


def _pick(rng: random.Random, items: tuple[str, ...]) -> str:
    return items[int(rng.random() * len(items))]


def _fill(rng: random.Random, template: str) -> str:
    """Fill the gaps of a template; in a masked word, a sign replaces a letter."""

    def fill(gap: re.Match[str]) -> str:
        word = str(1890 + int(rng.random() * 130)) if gap[1] == "year" else _pick(rng, WORDS[gap[1]])
        if gap[1] in ("fool", "a_fool", "coarse", "swear") and rng.random() < MASKED:
            place = len(word) - 1 - int(rng.random() * 3)
            word = word[:place] + _pick(rng, MASKS) + word[place + 1 :]
        return word

    filled = re.sub(r"\{(\w+)\}", fill, template)
    return filled[0].upper() + filled[1:]


def _spoil(rng: random.Random, text: str, *, severe: bool) -> str:
    """Add typing errors, capitals and exclamation marks."""
    while rng.random() < MISSPELT:
        place = 1 + int(rng.random() * (len(text) - 2))
        left, right = text[place - 1], text[place]
        slips = (right + left, right, left + left + right)  # exchanged, left out, doubled
        text = (text[: place - 1] + _pick(rng, slips) + text[place + 1 :]).strip()
    if rng.random() < SHOUTED * (5 if severe else 1):
        return text.upper() + "!" * int(rng.random() * 4)
    return text.lower() if rng.random() < LOWER_CASE else text


def _mislabel(rng: random.Random, labels: set[str]) -> set[str]:
    """Add annotation errors; severe_toxic still implies toxic."""
    given = {label for label in LABELS if label in labels and rng.random() >= MISSED_LABEL}
    if not labels and rng.random() < WRONG_LABEL:
        given |= {"toxic", _pick(rng, LABELS)}
    return given | {"toxic"} if "severe_toxic" in given else given
