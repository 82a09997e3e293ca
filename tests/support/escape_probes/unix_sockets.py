"""Sockets of the family AF_UNIX, shared memory and queues: ways to other processes of the machine."""

import ctypes
import os
import socket

from .probe import Given, checked, expect, libc, probe, read_some


@probe()
def connects_by_path(given: Given) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(given.unix_stream)


@probe()
def connects_by_a_relative_path(given: Given) -> None:
    os.chdir(os.path.dirname(given.unix_stream))
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(os.path.basename(given.unix_stream))


@probe()
def connects_by_a_symbolic_link(given: Given) -> None:
    if os.path.lexists("link.sock"):
        os.unlink("link.sock")
    os.symlink(given.unix_stream, "link.sock")
    with socket.socket(socket.AF_UNIX) as made:
        made.connect("link.sock")


@probe()
def sends_a_datagram_by_path(given: Given) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.sendto(b"ping", given.unix_datagram)


@probe()
def connects_to_an_abstract_name(given: Given) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect("\0" + given.unix_abstract)


@probe()
def sees_the_sockets(given: Given) -> None:
    with open("/proc/net/unix") as file:
        expect(given.unix_stream in file.read(), "the socket is not there")


@probe()
def opens_shared_memory(given: Given) -> None:
    expect(given.secret in read_some(given.shared_memory).decode(), "it has another content")


@probe()
def opens_system_v_shared_memory(given: Given) -> None:
    checked(libc.shmget(given.system_v_key, ctypes.c_size_t(0), 0), "shmget")


@probe()
def opens_a_system_v_queue(given: Given) -> None:
    checked(libc.msgget(given.system_v_key, 0), "msgget")


@probe()
def opens_a_system_v_semaphore(given: Given) -> None:
    checked(libc.semget(given.system_v_key, 0, 0), "semget")
