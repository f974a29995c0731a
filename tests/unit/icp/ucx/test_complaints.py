from __future__ import annotations

import logging

from tridist.icp.ucx.complaints import Complaints


def test_a_kind_of_warning_is_written_rarely_and_counted_meanwhile(caplog):
    now = [0.0]
    complaints = Complaints(logging.getLogger("complaints"), lambda: now[0])
    for number in range(100):
        complaints.warn("peer %s is odd", number)
    complaints.warn("peer %s is even odder", 7)
    now[0] += 60
    complaints.warn("peer %s is odd", 100)
    complaints.warn("peer %s is odd", 101)
    assert [record.getMessage() for record in caplog.records] == [
        "peer 0 is odd",
        "peer 7 is even odder",
        "peer 100 is odd (99 more like it since the last)",
    ]


def test_what_a_peer_says_is_no_format(caplog):
    Complaints(logging.getLogger("complaints")).warn("peer %s is odd", "%s %d %(x)s")
    assert caplog.records[0].getMessage() == "peer %s %d %(x)s is odd"
