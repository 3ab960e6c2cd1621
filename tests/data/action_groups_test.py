"""The groups of UCF-101's and HMDB-51's classes: as many as the data sets say."""

from collections import Counter

from jaxmoe.data.listing.action_groups import HMDB51_GROUPS, UCF101_GROUPS, group_column


def test_each_class_is_in_one_group():
    sizes = {"sports": 50, "human_object": 20, "body_motion": 16, "instruments": 10}
    assert Counter(UCF101_GROUPS.values()) == {**sizes, "human_human": 5}
    sizes = {"body_motion": 19, "human_object": 18, "human_human": 7, "face": 4, "face_object": 3}
    assert Counter(HMDB51_GROUPS.values()) == sizes


def test_capitals_do_not_matter_and_an_unknown_class_has_no_group():
    assert group_column("HandstandPushups", UCF101_GROUPS) == {"group": "body_motion"}
    assert group_column("HandStandPushups", UCF101_GROUPS) == {"group": "body_motion"}
    assert group_column("sit_up", HMDB51_GROUPS) == {}
