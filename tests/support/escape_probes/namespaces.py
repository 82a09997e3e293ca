"""Namespaces and mounts. In the control, in a child process with mounts of its own."""

import ctypes
import errno
import os
import struct
import subprocess

from .probe import Given, checked, expect, in_child, in_thread, libc, looked_at, probe, system_call

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00000080,
)  # fmt: skip
KINDS = {
    "mnt": (NEWNS,), "cgroup": (NEWCGROUP,), "uts": (NEWUTS,), "ipc": (NEWIPC,), "pid": (NEWPID,), "net": (NEWNET,),
    "time": (NEWTIME,),
}  # fmt: skip
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 0x1, 0x20, 0x1000, 0x2000, 0x4000, 0x40000
MNT_DETACH = 2
SIGCHLD = 17
NO_CALL = (errno.ENOSYS,)


def mount(source: str, target: str, kind: str = "", flags: int = 0) -> None:
    """See `man 2 mount`. Raises OSError."""
    words = (ctypes.c_char_p(text.encode() or None) for text in (source, target, kind))
    checked(libc.mount(*words, ctypes.c_ulong(flags), None), f"mount {target}")


def private_mounts() -> None:
    """Mounts of this process's own, where it may have them. Where it may not, what follows is tried all the same."""
    if libc.unshare(NEWNS) == 0:
        mount("", "/", flags=MS_REC | MS_PRIVATE)


@probe("root", cases=KINDS, may_lack=(errno.EINVAL,))
def leaves_a_namespace(given: Given, flag: int) -> None:
    in_child(lambda: checked(libc.unshare(flag), "unshare"))


@probe(cases={"user": (NEWUSER,), "user and mounts": (NEWUSER | NEWNS,), "user and network": (NEWUSER | NEWNET,)})
def makes_a_user_namespace(given: Given, flags: int) -> None:
    in_child(lambda: checked(libc.unshare(flags), "unshare"))


@probe()
def makes_a_user_namespace_in_a_thread(given: Given) -> None:
    """A process with threads can't; the kernel says so after the filter."""

    def act() -> None:
        try:
            checked(libc.unshare(NEWUSER), "unshare")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    in_thread(act)


@probe()
def makes_a_user_namespace_by_a_program(given: Given) -> None:
    done = subprocess.run(["unshare", "--user", "true"], capture_output=True, text=True, check=False)
    expect(done.returncode == 0, done.stderr)


def _clone(flags: int) -> None:
    child = system_call(56, flags | SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@probe(
    cases={"user": (NEWUSER,), "user and process ids": (NEWUSER | NEWPID,), "with high bits": (1 << 32 | NEWUSER,)}
)
def clones_into_a_user_namespace(given: Given, flags: int) -> None:
    in_child(lambda: _clone(flags))


@probe("root", cases={name: flags for name, flags in KINDS.items() if name != "time"})
def clones_into_a_namespace(given: Given, flag: int) -> None:
    in_child(lambda: _clone(flag))


@probe(cases={"nothing": (0,), "user": (NEWUSER,), "user and time": (NEWUSER | NEWTIME,)}, may_lack=NO_CALL)
def clones_by_the_newer_call(given: Given, flags: int) -> None:
    def act() -> None:
        child = system_call(435, struct.pack("8Q", flags, 0, 0, 0, SIGCHLD, 0, 0, 0), 64)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    in_child(act)


@probe("root", cases={name: (name,) for name in ("mnt", "cgroup", "uts", "ipc", "pid", "net")})
def enters_its_own_namespace(given: Given, name: str) -> None:
    def act() -> None:
        descriptor = os.open(f"/proc/self/ns/{name}", os.O_RDONLY)
        checked(libc.setns(descriptor, 0), "setns")

    in_child(act)


@probe("root", cases={name: (name,) for name in ("mnt", "net", "uts", "ipc", "pid")})
def enters_a_namespace_of_the_first_process(given: Given, name: str) -> None:
    def act() -> None:
        descriptor = os.open(f"/proc/{given.first_process}/ns/{name}", os.O_RDONLY)
        checked(libc.setns(descriptor, 0), "setns")

    in_child(act)


@probe("root")
def enters_the_namespaces_of_a_process(given: Given) -> None:
    def act() -> None:
        checked(libc.setns(os.pidfd_open(os.getppid()), NEWNET | NEWUTS), "setns")

    in_child(act)


@probe()
def may_make_user_namespaces(given: Given) -> None:
    with open("/proc/sys/user/max_user_namespaces") as file:
        expect(int(file.read()), "the maximum is 0")


@probe()
def has_many_users(given: Given) -> None:
    with open("/proc/self/uid_map") as file:
        expect(any(int(line.split()[2]) > 1 for line in file), "there is one")


@probe(
    "root",
    cases={"uid_map": ("uid_map", "0 0 1"), "gid_map": ("gid_map", "0 0 1"), "setgroups": ("setgroups", "allow")},
)
def maps_users(given: Given, name: str, text: str) -> None:
    """In the control in a new namespace: one that has users can't get others."""

    def act() -> None:
        is_new = libc.unshare(NEWUSER) == 0
        if is_new and name == "gid_map":
            with open("/proc/self/setgroups", "w") as file:
                file.write("deny")
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)

    in_child(act)


@probe("root", cases={"tmpfs": ("tmpfs",), "proc": ("proc",), "sysfs": ("sysfs",), "devpts": ("devpts",)})
def mounts(given: Given, kind: str) -> None:
    def act() -> None:
        private_mounts()
        os.makedirs("mounted", exist_ok=True)
        mount(kind, os.path.abspath("mounted"), kind)

    in_child(act)


@probe("root", cases={"the root": ("/",), "its folder": (".",), "/proc": ("/proc",), "/usr": ("/usr",)})
def binds(given: Given, path: str) -> None:
    def act() -> None:
        private_mounts()
        os.makedirs("bound", exist_ok=True)
        mount(path, os.path.abspath("bound"), flags=MS_BIND)

    in_child(act)


@probe(
    "root", cases={path: (path,) for path in ("/sessions", "/tmp", "/proc", "/proc/sys", "/dev/shm", "/session", "/")}
)
def removes_a_cover(given: Given, path: str) -> None:
    """What hides the machine's own folders. In the control, one that it has mounted itself."""

    def act() -> None:
        private_mounts()
        target = path
        if not os.path.isdir("/hearth"):
            target = os.path.abspath("cover")
            os.makedirs(target, exist_ok=True)
            mount("tmpfs", target, "tmpfs")
        system_call(166, target.encode(), MNT_DETACH)

    in_child(act)


@probe("root")
def makes_its_mounts_writable(given: Given) -> None:
    def act() -> None:
        private_mounts()
        mount("", "/", flags=MS_REMOUNT | MS_BIND)

    in_child(act)


@probe("root")
def moves_a_mount(given: Given) -> None:
    def act() -> None:
        private_mounts()
        for name in ("from", "to"):
            os.makedirs(name, exist_ok=True)
        if not os.path.ismount("/session"):
            mount("tmpfs", os.path.abspath("from"), "tmpfs")
        mount(os.path.abspath("from"), os.path.abspath("to"), flags=MS_MOVE)

    in_child(act)


@probe("root")
def changes_its_root(given: Given) -> None:
    in_child(lambda: os.chroot("."))


@probe("root")
def exchanges_its_root(given: Given) -> None:
    def act() -> None:
        private_mounts()
        new = os.path.abspath("new_root")
        os.makedirs(new, exist_ok=True)
        if libc.mount(b"tmpfs", new.encode(), b"tmpfs", 0, None) == 0:
            os.makedirs(f"{new}/old", exist_ok=True)
        system_call(155, new.encode(), f"{new}/old".encode())

    in_child(act)


@probe("root", may_lack=NO_CALL)
def opens_a_file_system(given: Given) -> None:
    os.close(system_call(430, b"tmpfs", 0))


@probe(
    "root",
    cases={"open_tree": (428,), "move_mount": (429,), "fsconfig": (431,), "fsmount": (432,), "fspick": (433,)}
    | {"mount_setattr": (442,), "statmount": (457,), "listmount": (458,), "open_tree_attr": (467,)},
    may_lack=NO_CALL,
)
def calls_the_newer_interface(given: Given, number: int) -> None:
    in_child(lambda: looked_at(number, -1, 0, 0, 0, 0))
