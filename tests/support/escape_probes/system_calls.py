"""System calls by their numbers on x86-64, most with arguments that mean nothing: what is asked is whether the kernel
looks at them. None of these does harm outside."""

import ctypes
import errno
import struct

from .probe import Given, in_child, looked_at, probe, system_call

NO_CALL = (errno.ENOSYS,)
BAD = -1
PLAIN: dict[str, tuple[int, tuple[object, ...]]] = {
    "io_uring_enter": (426, (BAD, 0, 0, 0, 0, 0)),
    "io_uring_register": (427, (BAD, 0, 0, 0)),
    "add_key": (248, (b"user", b"hearth-probe", b"x", 1, -1)),
    "request_key": (249, (b"user", b"hearth-no-such-key", 0, 0)),
    "keyctl": (250, (0, -1, 0, 0, 0)),
    "vmsplice": (278, (BAD, 0, 0, 0)),
    "modify_ldt": (154, (0, 0, 0)),
    "personality": (135, (0xFFFFFFFF,)),
    "ustat": (136, (0, 0)),
    "sysfs": (139, (3, 0, 0)),
    "mbind": (237, (0, 0, 0, 0, 0, 0)),
    "set_mempolicy": (238, (0, 0, 0)),
    "set_mempolicy_home_node": (450, (0, 0, 0, 1)),
    "migrate_pages": (256, (0, 0, 0, 0)),
    "move_pages": (279, (0, 0, 0, 0, 0, 0)),
    "memfd_secret": (447, (0xFFFF,)),
    "name_to_handle_at": (303, (BAD, b"x", 0, 0, 0)),
    "process_madvise": (440, (BAD, 0, 0, 0, 0)),
    "quotactl_fd": (443, (BAD, 0, 0, 0)),
}
OF_ROOT: dict[str, tuple[int, tuple[object, ...]]] = {
    "reboot": (169, (0, 0, 0, 0)),
    "kexec_load": (246, (0, 99, 0, 0)),
    "kexec_file_load": (320, (BAD, BAD, 0, 0, 0xFFFF)),
    "init_module": (175, (0, 0, 0)),
    "finit_module": (313, (BAD, 0, 0)),
    "delete_module": (176, (b"hearth_no_such_module", 0)),
    "swapon": (167, (b"/hearth/no/such/file", 0)),
    "swapoff": (168, (b"/hearth/no/such/file",)),
    "acct": (163, (b"/hearth/no/such/file",)),
    "quotactl": (179, (0, 0, 0, 0)),
    "syslog": (103, (10, 0, 0)),
    "iopl": (172, (99,)),
    "ioperm": (173, (1 << 20, 1, 1)),
    "fanotify_init": (300, (0, 0)),
    "open_by_handle_at": (304, (BAD, 0, 0)),
    "bpf": (321, (99, 0, 0)),
    "pivot_root": (155, (b"/hearth/no", b"/hearth/no")),
    "chroot": (161, (b"/hearth/no",)),
    "umount2": (166, (b"/hearth/no", 0)),
    "mount": (165, (b"x", b"/hearth/no", b"tmpfs", 0, 0)),
    "settimeofday": (164, (0, 0)),
}


@probe(cases={name: call for name, call in PLAIN.items()}, may_lack=NO_CALL)
def makes(given: Given, number: int, arguments: tuple[object, ...]) -> None:
    in_child(lambda: looked_at(number, *arguments))


@probe("root", cases={name: call for name, call in OF_ROOT.items()}, may_lack=NO_CALL)
def makes_as_root(given: Given, number: int, arguments: tuple[object, ...]) -> None:
    in_child(lambda: looked_at(number, *arguments))


@probe("root", may_lack=NO_CALL)
def makes_a_ring(given: Given) -> None:
    in_child(lambda: system_call(425, 4, ctypes.create_string_buffer(120)))


@probe("root", may_lack=NO_CALL)
def handles_page_faults(given: Given) -> None:
    in_child(lambda: system_call(323, 0))


@probe("root", may_lack=(*NO_CALL, errno.ENOENT, errno.EOPNOTSUPP))
def measures_performance(given: Given) -> None:
    """The processor's clock, of this process."""
    attributes = struct.pack("IIQQQQ", 1, 112, 0, 0, 0, 0) + bytes(72)
    in_child(lambda: system_call(298, attributes, 0, -1, -1, 0))


@probe("root", may_lack=(*NO_CALL, errno.EPERM))
def loads_a_program_into_the_kernel(given: Given) -> None:
    """A socket filter of two instructions: `return 0`."""
    instructions = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0), 16)
    license = ctypes.create_string_buffer(b"GPL")
    words = struct.pack("=IIQQIIQI", 1, 2, ctypes.addressof(instructions), ctypes.addressof(license), 0, 0, 0, 0)
    attributes = ctypes.create_string_buffer(words, 128)
    in_child(lambda: system_call(321, 5, attributes, 128))


@probe(may_lack=NO_CALL)
def keeps_a_secret_in_the_kernel(given: Given) -> None:
    in_child(lambda: system_call(248, b"user", b"hearth-probe", b"x", 1, -1))


@probe()
def makes_it_in_a_grandchild(given: Given) -> None:
    """A filter holds for all that is started below."""
    in_child(lambda: in_child(lambda: system_call(135, 0xFFFFFFFF)))
