"""What clients tell workers, inside one process. Nothing gets lost here, so workers need not ask."""

from __future__ import annotations

from tridist.icp.client_watch import ClientWatch
from tridist.icp.reports import ClientReport, decode_report, encode_report
from tridist.icp.subjects import OperatorSubjects


class ReportBoard:
    """The workers of a `MemoryBroker` that want to hear of their clients. Reports pass through the codec."""

    def __init__(self) -> None:
        self._workers: dict[str, ClientWatch] = {}
        self._operators: dict[OperatorSubjects, list[ClientWatch]] = {}

    def listen(self, address: str, watch: ClientWatch) -> None:
        """A worker hears what is said to it alone."""
        self._workers[address] = watch

    def serve(self, operator: OperatorSubjects, watch: ClientWatch) -> None:
        """A worker hears what is said to all workers of an operator."""
        watches = self._operators.setdefault(operator, [])
        if watch not in watches:
            watches.append(watch)

    def stop(self, address: str, watch: ClientWatch) -> None:
        """A worker hears no more."""
        self._workers.pop(address, None)
        for watches in self._operators.values():
            if watch in watches:
                watches.remove(watch)

    def read(self, address: str, client: str, request_id: str, read: int) -> None:
        """A client tells a worker how many responses it has read."""
        watch = self._workers.get(address)
        if watch is not None:
            watch.report(client, _through_the_codec(ClientReport(read={request_id: read})))

    def leave(self, operator: OperatorSubjects, client: str, request_id: str, sequence: int) -> None:
        """A client tells the workers of an operator that it has left a request."""
        report = _through_the_codec(ClientReport(left={request_id: sequence}))
        for watch in list(self._operators.get(operator, ())):
            watch.report(client, report, (operator.operator, operator.version))


def _through_the_codec(report: ClientReport) -> ClientReport:
    return decode_report(encode_report(report))
