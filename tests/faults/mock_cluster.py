"""librdkafka's embedded broker with its injection of errors: the few functions of the C API that takes."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import cimpl

_PRODUCER = 0


def _librdkafka() -> ctypes.CDLL:
    # Through the client's own module: the very librdkafka that it is linked with.
    library = ctypes.CDLL(cimpl.__file__)
    pointer, integer, text, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_new", pointer, [integer, pointer, text, size]),
        ("rd_kafka_destroy", None, [pointer]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, integer]),
        ("rd_kafka_mock_cluster_destroy", None, [pointer]),
        ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, [pointer, ctypes.c_int32]),
        (
            "rd_kafka_mock_push_request_errors_array",
            None,
            [pointer, ctypes.c_int16, size, ctypes.POINTER(integer)],
        ),
        ("rd_kafka_mock_start_request_tracking", None, [pointer]),
        ("rd_kafka_mock_get_requests", ctypes.POINTER(pointer), [pointer, ctypes.POINTER(size)]),
        ("rd_kafka_mock_request_api_key", ctypes.c_int16, [pointer]),
        ("rd_kafka_mock_request_destroy_array", None, [ctypes.POINTER(pointer), size]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class MockCluster:
    """One embedded broker that answers with the errors it is told to."""

    def __init__(self, library: ctypes.CDLL, cluster: int) -> None:
        self._library = library
        self._cluster = cluster
        self.address: str = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()

    def push_errors(self, api_key: int, errors: Sequence[int]) -> None:
        """Answer the next requests of a kind with these errors, one each."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, len(errors), array)

    def requests(self) -> Counter[int]:
        """Return how many requests of each kind there have been."""
        count = ctypes.c_size_t()
        requests = self._library.rd_kafka_mock_get_requests(self._cluster, ctypes.byref(count))
        try:
            return Counter(self._library.rd_kafka_mock_request_api_key(requests[n]) for n in range(count.value))
        finally:
            self._library.rd_kafka_mock_request_destroy_array(requests, count)


@contextmanager
def mock_cluster() -> Iterator[MockCluster]:
    """Run an embedded broker until the block ends."""
    library = _librdkafka()
    problem = ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(_PRODUCER, library.rd_kafka_conf_new(), problem, len(problem))
    assert client, problem.value.decode()
    cluster = library.rd_kafka_mock_cluster_new(client, 1)
    try:
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 500)
        library.rd_kafka_mock_start_request_tracking(cluster)
        yield MockCluster(library, cluster)
    finally:
        library.rd_kafka_mock_cluster_destroy(cluster)
        library.rd_kafka_destroy(client)
