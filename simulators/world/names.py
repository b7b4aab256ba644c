"""Words that titles, people and plots of invented films are made of, and how they are put together.

All of it is written for this project. Places and surnames are made up, so that a title is unlikely to be that
of a real film; no title ends in a number, which leaves room for numbered sequels where two would be the same.
"""

from collections.abc import Iterable

import numpy as np

NOUNS = {
    "comedy": "Umbrella Landlord Parrot Sandwich Wedding Nephew Postman Trombone Goose Housewarming".split(),
    "drama": "Orchard Promise Letter Kitchen Winter Daughter Ferry Silence Harvest Lodger".split(),
    "thriller": "Signal Informant Ledger Elevator Cipher Passenger Blackout Witness Courier Alibi".split(),
    "romance": "Waltz Rose Postcard Balcony Serenade Summer Ribbon Bicycle Bouquet Melody".split(),
    "science fiction": "Orbit Machine Colony Satellite Robot Comet Beacon Circuit Telescope Rocket".split(),
    "horror": "Cellar Crypt Scarecrow Whisper Mirror Doll Chapel Swamp Attic Shadow".split(),
    "adventure": "Map Voyage Compass Canyon Caravan Island River Expedition Summit Galleon".split(),
    "mystery": "Locket Riddle Manor Footprint Portrait Key Clockmaker Stranger Inkwell Diary".split(),
    "fantasy": "Dragon Lantern Wizard Crown Sword Forest Spell Kingdom Raven Cloak".split(),
    "crime": "Heist Vault Safecracker Detective Racket Forger Docks Verdict Bribe Getaway".split(),
    "western": "Saddle Sheriff Prairie Stagecoach Ranch Coyote Gulch Drifter Railroad Holster".split(),
    "musical": "Chorus Ballroom Tambourine Songbook Encore Piano Overture Accordion Refrain Cabaret".split(),
    "animation": "Hedgehog Teapot Balloon Snowman Squirrel Kite Acorn Penguin Toymaker Otter".split(),
    "documentary": "Lighthouse Glacier Market Beehive Workshop Library Harbour Marathon Quarry".split(),
}
ADJECTIVES = (
    "Amber Bitter Borrowed Brass Broken Careless Copper Crooked Distant Dusty Empty Endless Faded "
    "Faithful Fearless Forgotten Frozen Gilded Tarnished Green Hidden Hollow Hungry Idle Inquisitive "
    "Ivory Jagged Lopsided Lonely Lucky Marble Midnight Missing Modest Muddy Narrow Nameless Northern "
    "Paper Patient Pale Quiet Reckless Restless Rusty Russet Sunken Seventh Silver Sleepless Stolen "
    "Stubborn Tangled Timid Unfinished Velvet Wandering Wayward Wicker Yellow"
).split()
PLACES = (
    "Aldermere Ashcombe Bellwick Brackenhall Calverose Carrowmoor Cindervale Dunmarrow Eastermoor Elderfen "
    "Farrowgate Fenwater Glasspool Greymantle Hartlow Hollowmere Ironcross Jasperdale Kestrelby Kingsmarsh "
    "Larkhollow Lowenna Marrowby Millbrace Netherby Northwick Oakenford Ostervale Pellham Quillbrook "
    "Ravensholt Rookhaven Saltergate Silverbeck Stonewick Tallowmere Thornaby Umberley Valemont Wexcombe "
    "Whistledown Wintermoor Yarrowfield"
).split()
FIRST_NAMES = (
    "Ada Alba Amos Anselm Aria Basil Bettina Bram Cassia Cedric Clara Cosima Dario Delia Dorian Edda Elias "
    "Elsa Emeric Esme Fabian Flora Gideon Greta Hadley Hector Ida Ines Ivo Jonas Juno Kasper Lena Linus "
    "Lorna Lucian Mabel Magnus Marta Milo Nadia Nell Odette Oscar Otto Petra Quentin Rosa Rufus Sabine Silas "
    "Stella Tamsin Theo Thora Ursula Verity Viola Willa Zeno"
).split()
SURNAMES = (
    "Abelard Ambrow Arkwell Ballister Bexley Birchall Bramwick Calloway Carrick Castellane Corvane Crowhurst "
    "Dalloway Delmore Dunavant Eastlake Ellery Fairbourne Fenwick Garrowby Glenister Halvane Harkaway "
    "Hawthorne Holloway Inglewood Jessamy Kellaway Kestrel Lanyon Larkspur Lindqvale Lovelock Mallory "
    "Marchbank Merriden Montrose Nightingale Norwell Oakhurst Orrick Pemberlow Penhallow Quill Ravenel "
    "Redfern Rosander Rookwood Sallowby Sorrell Stavely Strand Tamberlane Thackeroy Tollen Trevanion "
    "Underhay Vandermeer Vesper Wainscott Wetherell Winterbourne Wrenfield Yarrow"
).split()
COUNTS = "Two Three Five Seven Nine Eleven Forty".split()
SPANS = "Days Nights Winters Summers Sundays Letters Promises".split()
VERBS = "Chasing Selling Burying Following Saving Painting Counting Leaving Stealing Naming".split()
ENDINGS = "Knew Heard Left Remembered Wanted Hid Saw".split()

TRAITS = (
    "retired shy stubborn young widowed restless proud clumsy plain-spoken quiet homesick tireless lonely "
    "ambitious forgetful sharp-eyed penniless careful dreamy weary"
).split()
ROLES = (
    "baker,lighthouse keeper,piano teacher,night nurse,bus driver,botanist,clerk,carpenter,translator,ferry "
    "captain,watchmaker,schoolteacher,photographer,lawyer,cook,farmer,radio "
    "host,librarian,sailor,locksmith,gardener,tailor,geologist,violinist,grandmother,student,postal "
    "worker,inspector,beekeeper,mechanic"
).split(",")
DEEDS = {
    "comedy": "inherits a failing hotel,has to host two weddings at once,pretends to be a famous chef,"
    "loses a winning ticket,adopts a very rude parrot,is mistaken for the new mayor",
    "drama": "returns to sell the family house,learns to forgive a brother,raises a child that nobody "
    "claimed,loses the job of a lifetime,writes to a mother never met,keeps a promise made in wartime",
    "thriller": "overhears a plan on a crossed line,is followed by the same grey car,finds a stranger's "
    "passport,has one night to clear a name,carries a parcel that must not be opened,is the only witness to "
    "a vanishing",
    "romance": "falls for a rival,answers a letter meant for someone else,meets the same stranger every year,"
    "agrees to a pretend engagement,gives dancing lessons to an old flame,shares a train compartment with an "
    "ex",
    "science fiction": "receives a message from a future self,wakes up alone on a slow ship,repairs a "
    "machine that dreams,finds a door to another year,must talk a satellite out of falling,keeps the last "
    "garden in orbit",
    "horror": "rents a house with one room too many,hears singing from a dry well,finds a doll that moves at "
    "night,takes a job in an empty asylum,opens a grave that was never filled,is haunted by a borrowed coat",
    "adventure": "follows a torn map into the desert,crosses a mountain range on foot,hunts for a sunken "
    "galleon,joins a race around the continent,guides a lost caravan home,sails against a storm to save a "
    "village",
    "mystery": "finds a stopped clock and an empty chair,looks into the theft of a worthless painting,"
    "deciphers a diary written in mirror script,counts one guest too many at dinner,searches for a missing "
    "twin,receives invitations from a dead man",
    "fantasy": "is chosen to guard a sleeping dragon,trades a shadow for a wish,finds a forest that walks,"
    "becomes apprentice to a forgetful wizard,wears a crown that whispers,bargains with the winter king",
    "crime": "plans one last robbery,forges a painting too well,drives for the wrong people,"
    "hides a witness above the shop,settles an old debt at the docks,cracks a safe that belongs to the "
    "police",
    "western": "rides into a town without a sheriff,defends a well against a railroad,tracks a horse thief,"
    "escorts a stagecoach through the canyon,buys a ranch that outlaws want,waits at noon for three brothers",
    "musical": "puts on a show in a closed theatre,joins a travelling choir,writes a song that will not end,"
    "trades the office for the stage,teaches a whole street to dance,hides a golden voice",
    "animation": "befriends a lost penguin,builds a kite that can carry a house,shrinks to the size of an "
    "acorn,leads the toys out of the attic,travels by teapot across the sea,teaches a snowman about spring",
    "documentary": "keeps an old trade alive,measures a shrinking glacier,films one street for forty years,"
    "trains for a first marathon,runs the smallest library in the country,records songs before they are "
    "forgotten",
}
STAKES = (
    "before the first snow,in a town that never sleeps,with nothing but a borrowed suitcase,during the "
    "hottest week of the year,while everyone else looks away,on the eve of a great storm,far from "
    "home,against all advice,with help from an unlikely friend,in the last days of summer,with a secret to "
    "keep,one year after the flood,at the edge of the known world,for the sake of a stranger,without a word "
    "to anyone"
).split(",")


def with_article(phrase: str) -> str:
    """The phrase with "a" or "an" before it, by its first letter; the word lists avoid the exceptions.

    Example:
        >>> with_article("ambitious clerk")
        'an ambitious clerk'
    """
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def draw_title(genre: str, rng: np.random.Generator) -> str:
    """One title in the manner of a genre, not yet unique."""
    noun, adjective, place, first, count, span, verb, ending = (
        words[rng.integers(len(words))]
        for words in (NOUNS[genre], ADJECTIVES, PLACES, FIRST_NAMES, COUNTS, SPANS, VERBS, ENDINGS)
    )
    patterns = (
        f"The {adjective} {noun}",
        f"The {noun} of {place}",
        f"The {noun} at {place}",
        f"{first} and the {noun}",
        f"{first}'s {noun}",
        f"A{with_article(noun)[1:]} for {first}",
        f"A{with_article(adjective)[1:]} {noun} in {place}",
        f"{count} {span} in {place}",
        f"{verb} the {adjective} {noun}",
        f"What the {noun} {ending}",
    )
    return patterns[rng.choice(len(patterns), p=PATTERN_SHARES)]


PATTERN_SHARES = np.array([5, 3, 2, 3, 2, 2, 2, 2, 4, 1]) / 26
"""How often each title pattern is used; those with many combinations more often."""


def draw_titles(genres: Iterable[str], rng: np.random.Generator, *, tries: int = 6) -> list[str]:
    """One title for each film, no two the same; one that stays taken after `tries` draws becomes a sequel.

    Args:
        genres: The first genre of each film.
        rng: Source of randomness.
        tries: Draws before a number is appended.
    """
    copies: dict[str, int] = {}
    titles = []
    for genre in genres:
        for _ in range(tries):
            title = draw_title(genre, rng)
            if title not in copies:
                break
        copies[title] = copies.get(title, 0) + 1
        titles.append(title if copies[title] == 1 else f"{title} {copies[title]}")
    return titles


def draw_plot(genre: str, rng: np.random.Generator) -> str:
    """A plot of a genre in one line: a noun phrase without a full stop, fit to follow "It is about"."""
    deeds = DEEDS[genre].split(",")
    trait, role, deed, stake = (words[rng.integers(len(words))] for words in (TRAITS, ROLES, deeds, STAKES))
    return f"{with_article(trait)} {role} who {deed} {stake}"


def draw_people(n_people: int, rng: np.random.Generator) -> list[str]:
    """Different full names.

    Args:
        n_people: At most the number of first names times that of surnames.
        rng: Source of randomness.
    """
    pairs = rng.choice(len(FIRST_NAMES) * len(SURNAMES), size=n_people, replace=False)
    return [f"{FIRST_NAMES[p // len(SURNAMES)]} {SURNAMES[p % len(SURNAMES)]}" for p in pairs]
