"""Other ways into the kernel than the one of x86-64: 32 bits by `int 0x80`, and the numbers of x32."""

import ctypes
import errno
import mmap
import os
import signal

from .probe import X86_64, Given, MissedError, expect, in_child, probe, system_call

X32 = 0x40000000
CODE = (
    b"\x53"  # push rbx
    b"\x89\xf8"  # mov eax, edi
    b"\x89\xf3"  # mov ebx, esi
    b"\x31\xc9\x31\xd2\x31\xf6\x31\xff"  # no further arguments
    b"\xcd\x80"  # int 0x80
    b"\x5b\xc3"  # pop rbx; ret
)


def _by_interrupt(number: int, argument: int) -> None:
    """A system call of 32 bits, after which the process ends. Raises OSError."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(CODE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    result = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)(number, argument)
    if result < 0 and -result != errno.EFAULT:  # with that, the kernel has looked
        raise OSError(-result, os.strerror(-result))
    os._exit(0)


@probe(
    cases={"getpid": (20, 0), "personality": (136, -1), "unshare": (310, 0), "mount": (21, 0), "umask": (60, 0o22)},
    may_lack=(errno.ENOEXEC,),
)
def by_the_interrupt(given: Given, number: int, argument: int) -> None:
    expect(X86_64, "another processor")
    try:
        in_child(lambda: _by_interrupt(number, argument))
    except MissedError as error:
        if signal.SIGSEGV.name in str(error):
            raise OSError(errno.ENOEXEC, "the kernel has no calls of 32 bits") from None
        raise


@probe(cases={"getpid": (39,), "socket": (41,), "personality": (135,), "unshare": (272,)}, may_lack=(errno.ENOSYS,))
def by_the_numbers_of_x32(given: Given, number: int) -> None:
    in_child(lambda: system_call(X32 | number, 2 if number == 41 else 0, 1, 0))


@probe(without_control="no kernel has a call of this number: the filter ends the process, and a kernel says ENOSYS")
def by_a_number_of_x32_that_is_unknown(given: Given) -> None:
    in_child(lambda: system_call(X32 | 999, 0))
