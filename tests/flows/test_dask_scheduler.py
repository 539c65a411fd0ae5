"""An address that is no Dask scheduler with workers is refused in seconds, before anything else begins."""

import socket

import pytest
from distributed import Scheduler, SpecCluster, Worker

from flows.dask_scheduler import check_dask_scheduler, scheduler_address
from flows.preflight import check_workers
from t2i_core.config import Config
from t2i_core.errors import ConfigError


@pytest.fixture
def silent():
    """The port of a program that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("address", ["127.0.0.1:9", "silent", "tls://127.0.0.1:9"])
def test_where_no_scheduler_answers_one_line_says_so(silent, address):
    address = f"127.0.0.1:{silent}" if address == "silent" else address
    with pytest.raises(ConfigError) as raised:
        check_dask_scheduler(address)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"dask_scheduler: no Dask scheduler answers at {scheduler_address(address)} (")
    assert "start one with `dask scheduler`" in line


def test_a_scheduler_without_workers_is_refused_and_one_with_workers_counted():
    options = {"host": "127.0.0.1", "dashboard": False}
    scheduler = {"cls": Scheduler, "options": options | {"port": 0, "dashboard_address": "127.0.0.1:0"}}
    with SpecCluster(workers={0: {"cls": Worker, "options": options}}, scheduler=scheduler) as cluster:
        address = cluster.scheduler_address
        assert check_dask_scheduler(address.removeprefix("tcp://")) == 1
        cluster.scale(0)
        cluster.sync(cluster._correct_state)
        with pytest.raises(ConfigError) as raised:
            check_dask_scheduler(address)
    assert str(raised.value) == (
        f"dask_scheduler: {address} has no workers; start one for each GPU with "
        f"`dask worker {address} --nthreads 2 --memory-limit 0`"
    )


@pytest.mark.parametrize("address", ["here", "http://here:80", "here:", ":8786", "here:8786/x", "a b:1"])
def test_what_is_no_address_is_refused_by_the_configuration(address):
    with pytest.raises(ConfigError, match="dask_scheduler"):
        Config.from_values({"dask_scheduler": address})


@pytest.mark.parametrize("address", ["here:8786", "tcp://10.0.0.1:8786", "tls://here:8786", "[::1]:8786"])
def test_an_address_is_a_host_and_a_port(address):
    assert Config.from_values({"dask_scheduler": address}).dask_scheduler == address


def test_a_scheduler_has_workers_of_its_own():
    with pytest.raises(ConfigError, match="dask_scheduler has workers of its own; leave workers out"):
        Config.from_values({"dask_scheduler": "here:8786", "workers": 2})


def test_workers_elsewhere_need_a_server_that_is_there_already(monkeypatch):
    config = Config.from_values({"dask_scheduler": "127.0.0.1:9"})
    monkeypatch.setattr("tasks.server.needs_own_server", lambda: True)
    with pytest.raises(ConfigError, match=r"dask_scheduler: workers need Prefect's server, too: start one with"):
        check_workers(config)


def test_one_card_by_name_is_no_device_of_all_workers():
    with pytest.raises(ConfigError, match="device: cuda:1 is one card; leave device or dask_scheduler out"):
        check_workers(Config.from_values({"dask_scheduler": "127.0.0.1:9", "device": "cuda:1"}))
