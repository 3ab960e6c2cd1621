"""The groups in which UCF-101 and HMDB-51 list their classes: the column `group` of their clips.

They are the data sets' own: what people do with things, with each other, with their bodies alone.
UCF-101: https://www.crcv.ucf.edu/data/UCF101.php (Soomro et al., 2012)
HMDB-51: https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/
(Kuehne et al., 2011)
"""

from collections.abc import Mapping

COLUMN = "group"

_UCF101 = {
    "human_object": """ApplyEyeMakeup ApplyLipstick BlowDryHair BrushingTeeth CuttingInKitchen
        Hammering HulaHoop JugglingBalls JumpRope Knitting Mixing MoppingFloor Nunchucks
        PizzaTossing ShavingBeard SkateBoarding SoccerJuggling Typing WritingOnBoard YoYo""",
    "body_motion": """BabyCrawling BlowingCandles BodyWeightSquats HandstandPushups
        HandstandWalking JumpingJack Lunges PullUps PushUps RockClimbingIndoor RopeClimbing Swing
        TaiChi TrampolineJumping WalkingWithDog WallPushups""",
    "human_human": "BandMarching Haircut HeadMassage MilitaryParade SalsaSpin",
    "instruments": """Drumming PlayingCello PlayingDaf PlayingDhol PlayingFlute PlayingGuitar
        PlayingPiano PlayingSitar PlayingTabla PlayingViolin""",
    "sports": """Archery BalanceBeam BaseballPitch Basketball BasketballDunk BenchPress Biking
        Billiards Bowling BoxingPunchingBag BoxingSpeedBag BreastStroke CleanAndJerk CliffDiving
        CricketBowling CricketShot Diving Fencing FieldHockeyPenalty FloorGymnastics FrisbeeCatch
        FrontCrawl GolfSwing HammerThrow HighJump HorseRace HorseRiding IceDancing JavelinThrow
        Kayaking LongJump ParallelBars PoleVault PommelHorse Punch Rafting Rowing Shotput Skiing
        Skijet SkyDiving SoccerPenalty StillRings SumoWrestling Surfing TableTennisShot TennisSwing
        ThrowDiscus UnevenBars VolleyballSpiking""",
}
_HMDB51 = {
    "face": "smile laugh chew talk",
    "face_object": "smoke eat drink",
    "body_motion": """cartwheel clap climb climb_stairs dive fall_floor flic_flac handstand jump
        pullup pushup run sit situp somersault stand turn walk wave""",
    "human_object": """brush_hair catch draw_sword dribble golf hit kick_ball pick pour push
        ride_bike ride_horse shoot_ball shoot_bow shoot_gun swing_baseball sword_exercise throw""",
    "human_human": "fencing hug kick kiss punch shake_hands sword",
}


def _by_class(groups: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): group for group, names in groups.items() for name in names.split()}


UCF101_GROUPS = _by_class(_UCF101)
"""By a class's name in lower case, whose capitals differ from list to list."""
HMDB51_GROUPS = _by_class(_HMDB51)


def group_column(label: str, groups: Mapping[str, str]) -> dict[str, str]:
    """The column of a clip of a class; none of a class that the data set does not have."""
    group = groups.get(label.lower())
    return {} if group is None else {COLUMN: group}
