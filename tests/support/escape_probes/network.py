"""Networks: the machine's own services, the server, names, and other kinds of sockets."""

import errno
import os
import socket
import subprocess
import sys
import urllib.request

from .probe import Given, expect, in_child, in_thread, probe, read_some, system_call

SECONDS = 3
NO_FAMILY = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.ENODEV)
AF_INET6, AF_NETLINK, AF_PACKET = 10, 16, 17
RAW, DATAGRAM, STREAM, SEQUENCED = 3, 2, 1, 5


def _connect(port: int, host: str = "127.0.0.1") -> None:
    socket.create_connection((host, port), SECONDS).close()


@probe()
def tcp_to_a_service_of_the_machine(given: Given) -> None:
    _connect(given.tcp_port)


@probe("ipv6")
def tcp6_to_a_service_of_the_machine(given: Given) -> None:
    _connect(given.tcp6_port, "::1")


@probe()
def udp_to_a_service_of_the_machine(given: Given) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(SECONDS)
        made.sendto(b"ping", ("127.0.0.1", given.udp_port))
        expect(made.recv(100) == b"pong", "no answer")


@probe()
def tcp_to_the_server(given: Given) -> None:
    _connect(given.server_port)


@probe()
def http_to_the_server(given: Given) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{given.server_port}/health", timeout=SECONDS) as answer:
        expect(answer.status == 200, "another status")


@probe(cases={"any": ("0.0.0.0",), "mapped": ("::ffff:127.0.0.1",), "name": ("localhost",)})
def tcp_by_another_address(given: Given, host: str) -> None:
    _connect(given.tcp_port, host)


@probe()
def looks_up_a_name(given: Given) -> None:
    socket.getaddrinfo("localhost", given.tcp_port)


@probe(
    "route",
    cases={"metadata": ("169.254.169.254",), "public": ("192.0.2.1",), "private": ("10.0.0.1",), "dns": ("8.8.8.8",)},
)
def has_a_route(given: Given, address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.connect((address, 53))


@probe(
    without_control="there is a metadata service on virtual machines of a cloud only; `has_a_route` is the nearest"
)
def asks_the_metadata_service(given: Given) -> None:
    urllib.request.urlopen("http://169.254.169.254/latest/meta-data/", timeout=SECONDS).close()


@probe(without_control="a machine of tests may have no network; `has_a_route` is the nearest")
def reaches_the_internet(given: Given) -> None:
    _connect(443, "1.1.1.1")


@probe()
def listens(given: Given) -> None:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()


@probe(
    "root",
    cases={
        "icmp": (socket.AF_INET, RAW, socket.IPPROTO_ICMP),
        "ip": (socket.AF_INET, RAW, socket.IPPROTO_RAW),
        "packet": (AF_PACKET, RAW, 0x0300),
        "packet, cooked": (AF_PACKET, DATAGRAM, 0x0300),
        "key management": (15, RAW, 2),
        "xdp": (44, RAW, 0),
    },
    may_lack=NO_FAMILY,
)
def opens_a_socket_of_root(given: Given, family: int, kind: int, protocol: int) -> None:
    socket.socket(family, kind, protocol).close()


@probe(
    cases={
        "netlink, routes": (AF_NETLINK, RAW, 0),
        "netlink, sockets": (AF_NETLINK, RAW, 4),
        "netlink, audit": (AF_NETLINK, RAW, 9),
        "netlink, netfilter": (AF_NETLINK, RAW, 12),
        "netlink, devices": (AF_NETLINK, RAW, 15),
        "netlink, generic": (AF_NETLINK, RAW, 16),
        "netlink, crypto": (AF_NETLINK, RAW, 21),
        "vsock": (40, STREAM, 0),
        "bluetooth": (31, SEQUENCED, 0),
        "crypto": (38, SEQUENCED, 0),
        "can": (29, RAW, 1),
        "tipc": (30, STREAM, 0),
        "rds": (21, SEQUENCED, 0),
        "nfc": (39, SEQUENCED, 0),
        "qrtr": (42, DATAGRAM, 0),
        "kcm": (41, DATAGRAM, 0),
        "ppp": (24, STREAM, 0),
        "smc": (43, STREAM, 0),
        "x25": (9, SEQUENCED, 0),
        "mctp": (45, DATAGRAM, 0),
        "sctp": (socket.AF_INET, STREAM, 132),
        "mptcp": (socket.AF_INET, STREAM, 262),
        "udplite": (socket.AF_INET, DATAGRAM, 136),
        "dccp": (socket.AF_INET, 6, 33),
    },
    may_lack=NO_FAMILY,
)
def opens_a_socket_of_another_kind(given: Given, family: int, kind: int, protocol: int) -> None:
    socket.socket(family, kind, protocol).close()


@probe()
def opens_a_socket_of_any_family(given: Given) -> None:
    for family in range(2, 64):
        for kind in (STREAM, DATAGRAM, RAW, SEQUENCED):
            try:
                socket.socket(family, kind).close()
            except OSError:
                continue
            return
    raise OSError(errno.EAFNOSUPPORT, "none of them")


@probe()
def opens_a_socket_by_number(given: Given) -> None:
    os.close(system_call(41, int(socket.AF_INET), STREAM, 0))


@probe()
def opens_a_socket_with_flags(given: Given) -> None:
    os.close(system_call(41, int(socket.AF_INET), STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0))


@probe()
def opens_a_socket_with_high_bits(given: Given) -> None:
    # A filter may compare 64 bits where the kernel reads 32.
    os.close(system_call(41, 1 << 32 | int(socket.AF_INET), STREAM, 0))


@probe()
def connects_in_a_child(given: Given) -> None:
    in_child(lambda: _connect(given.tcp_port))


@probe()
def connects_in_a_thread(given: Given) -> None:
    in_thread(lambda: _connect(given.tcp_port))


@probe()
def connects_in_another_python(given: Given) -> None:
    code = f"import socket; socket.create_connection(('127.0.0.1', {given.tcp_port}), {SECONDS})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    expect(done.returncode == 0, done.stderr[-100:])


@probe()
def connects_in_a_shell(given: Given) -> None:
    code = f"exec 3<>/dev/tcp/127.0.0.1/{given.tcp_port}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
    expect(done.returncode == 0, done.stderr[-100:])


@probe("route")
def sees_the_network_devices(given: Given) -> None:
    lines = read_some("/proc/net/dev").decode().split("\n")[2:]
    expect([line for line in lines if line.strip() and not line.strip().startswith("lo:")], "there is only lo")


@probe()
def sees_the_connections(given: Given) -> None:
    with open("/proc/net/tcp") as file:
        expect(f":{given.server_port:04X} " in file.read(), "the server's port is not there")


@probe()
def lists_the_network_devices(given: Given) -> None:
    expect(socket.if_nameindex(), "there are none")
