"""Files outside, by other ways than their paths."""

import ctypes
import errno
import mmap
import os
import struct

from .probe import Given, expect, in_child, probe, read_some, system_call

NO_CALL = (errno.ENOSYS, errno.EOPNOTSUPP)
AT_FDCWD = -100
RENAMES = ("/oldroot", "/newroot", "/.oldroot", "/proc/self/root", "/proc/thread-self/root")


def _is_secret(given: Given, path: str) -> None:
    expect(given.secret in read_some(path).decode(), "it has another content")


def _fresh(name: str) -> str:
    if os.path.lexists(name):
        os.unlink(name)
    return name


@probe()
def above_the_folder(given: Given) -> None:
    _is_secret(given, "../" * 40 + given.tmp_file.lstrip("/"))


@probe()
def above_the_root(given: Given) -> None:
    _is_secret(given, "/.." * 10 + given.tmp_file)


@probe()
def by_a_symbolic_link(given: Given) -> None:
    os.symlink(given.tmp_file, _fresh("link"))
    _is_secret(given, "link")


@probe()
def by_a_link_in_a_link(given: Given) -> None:
    os.symlink(os.path.dirname(given.tmp_file), _fresh("folder_link"))
    os.symlink(f"folder_link/{os.path.basename(given.tmp_file)}", _fresh("link2"))
    _is_secret(given, "link2")


@probe()
def by_a_hard_link(given: Given) -> None:
    os.link(given.tmp_file, _fresh("hard"))
    _is_secret(given, "hard")


@probe()
def by_renaming(given: Given) -> None:
    os.rename(given.tmp_file, given.tmp_file + ".moved")
    os.rename(given.tmp_file + ".moved", given.tmp_file)


@probe(cases={path: (path,) for path in RENAMES})
def below_another_root(given: Given, root: str) -> None:
    if not os.path.exists(root):  # outside, these are not there
        root = ""
    _is_secret(given, root + given.tmp_file)


@probe("root")
def below_the_root_of_init(given: Given) -> None:
    _is_secret(given, f"/proc/{given.first_process}/root{given.tmp_file}")


@probe()
def below_the_root_of_any_process(given: Given) -> None:
    for name in os.listdir("/proc"):
        for kind in ("root", "cwd"):
            try:
                _is_secret(given, f"/proc/{name}/{kind}/{'../' * 20}{given.tmp_file.lstrip('/')}")
            except OSError:
                continue
            return
    raise OSError(errno.ENOENT, "below none of them")


@probe()
def below_the_root_of_the_server(given: Given) -> None:
    _is_secret(given, f"/proc/{given.pids['server']}/root{given.tmp_file}")


@probe()
def in_the_folder_of_the_server(given: Given) -> None:
    expect(os.listdir(f"/proc/{given.pids['server']}/cwd"), "it is empty")


@probe()
def by_a_descriptor_that_was_inherited(given: Given) -> None:
    for name in os.listdir("/proc/self/fd"):
        try:
            if given.secret in os.pread(int(name), 1000, 0).decode(errors="replace"):
                return
        except OSError:
            continue
    expect(False, "none has the secret")


@probe()
def has_more_descriptors_than_it_needs(given: Given) -> None:
    """Input, output, errors, the channel, and the listing itself."""
    expect(len(os.listdir("/proc/self/fd")) > 5, "there are no more")


@probe()
def by_a_descriptor_of_any_process(given: Given) -> None:
    for process in os.listdir("/proc"):
        if process.isdigit():
            try:
                for name in os.listdir(f"/proc/{process}/fd"):
                    if os.readlink(f"/proc/{process}/fd/{name}") == given.tmp_file:
                        return
            except OSError:
                continue
    expect(False, "none has it open")


@probe()
def by_a_number_of_open(given: Given) -> None:
    os.close(system_call(2, given.tmp_file.encode(), os.O_RDONLY, 0))


@probe()
def by_a_number_of_openat(given: Given) -> None:
    os.close(system_call(257, AT_FDCWD, given.tmp_file.encode(), os.O_RDONLY, 0))


@probe(may_lack=NO_CALL)
def by_openat2(given: Given) -> None:
    os.close(system_call(437, AT_FDCWD, given.tmp_file.encode(), struct.pack("QQQ", os.O_RDONLY, 0, 0), 24))


@probe(may_lack=NO_CALL)
def by_openat2_of_its_own_folder(given: Given) -> None:
    os.close(system_call(437, AT_FDCWD, b".", struct.pack("QQQ", os.O_RDONLY, 0, 0), 24))


def _handle(path: str) -> tuple[ctypes.Array[ctypes.c_char], int]:
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    number = ctypes.c_int()
    system_call(303, AT_FDCWD, path.encode(), handle, ctypes.byref(number), 0)
    return handle, number.value


@probe(may_lack=NO_CALL)
def by_the_handle_of_a_file(given: Given) -> None:
    _handle(".")


@probe("root", may_lack=NO_CALL)
def opens_the_handle_of_a_file(given: Given) -> None:
    handle, _ = _handle(".")
    folder = os.open(".", os.O_RDONLY)
    os.close(system_call(304, folder, handle, os.O_RDONLY))


@probe("root", may_lack=(*NO_CALL, errno.ESTALE))
def opens_the_handle_of_the_root_folder(given: Given) -> None:
    """With the number 2, which the root of ext4 has: the way out of many containers."""
    folder = os.open(".", os.O_RDONLY)
    made = ctypes.create_string_buffer(struct.pack("IiII", 8, 1, 2, 0) + bytes(64))
    os.close(system_call(304, folder, made, os.O_RDONLY))


@probe()
def by_mapping_it(given: Given) -> None:
    with open(given.tmp_file, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        expect(given.secret.encode() in mapped[:], "it has another content")


@probe()
def by_a_descriptor_without_rights(given: Given) -> None:
    descriptor = os.open(given.tmp_file, os.O_PATH)
    _is_secret(given, f"/proc/self/fd/{descriptor}")


@probe("root")
def by_leaving_a_changed_root(given: Given) -> None:
    """The classic: change the root while the working folder is outside of it."""

    def act() -> None:
        os.makedirs("jail", exist_ok=True)
        os.chroot("jail")
        for _ in range(40):
            os.chdir("..")
        os.chroot(".")
        _is_secret(given, given.tmp_file)

    in_child(act)


@probe()
def watches_it(given: Given) -> None:
    descriptor = system_call(294, 0)
    try:
        system_call(254, descriptor, given.tmp_file.encode(), 2)
    finally:
        os.close(descriptor)


@probe()
def changes_its_times(given: Given) -> None:
    os.utime(given.tmp_file, (1, 1))
    expect(os.stat(given.tmp_file).st_mtime == 1, "they are as before")


@probe()
def changes_its_mode(given: Given) -> None:
    mode = os.stat(given.tmp_file).st_mode & 0o777
    os.chmod(given.tmp_file, mode ^ 0o044)
    expect(os.stat(given.tmp_file).st_mode & 0o777 != mode, "it is as before")


@probe()
def empties_a_file(given: Given) -> None:
    os.truncate(given.tmp_file, len(given.secret))


@probe()
def makes_a_file_next_to_it(given: Given) -> None:
    path = os.path.join(os.path.dirname(given.tmp_file), "made")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.unlink(path)
