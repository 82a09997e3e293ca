# ruff: noqa: RUF001 - ambiguous characters are what some of these are about
"""URLs that lead, or may lead, to addresses that are not public. `PORT` stands for the canary's port."""

# As it is written in the URL.
LITERALS = """
127.0.0.1 127.1 127.0.1 127.255.255.254 127.8.8.8 0 0.0.0.0 0.0.0.1 2130706433 0x7f000001 0x7f.1 0x7f.0.0.1
0x7F.0x0.0x0.0x1 017700000001 0177.0.0.1 0177.1 0000177.0.0.1 127.0.0.01 127.0.0.1. 127.0.0.1.. 4294967297
127.0.0.1%2f %31%32%37.0.0.1 127%2e0.0.1 127。0。0。1 127．0．0．1 １２７.０.０.１ ①②⑦.⓪.⓪.① 127.0.0.1%00 127.0.0.0x1
10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 169.254.169.254 169.254.170.2 100.64.0.1 100.100.100.200
100.127.255.254 198.18.0.1 192.0.0.1 192.0.0.192 192.0.2.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1
255.255.255.255 168.63.129.16 192.88.99.1 0xa9.0xfe.0xa9.0xfe 2852039166 0251.0376.0251.0376
[::1] [::] [0:0:0:0:0:0:0:1] [0000::0001] [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:127.0.0.1] [::ffff:10.0.0.1]
[::ffff:169.254.169.254] [::127.0.0.1] [::7f00:1] [::ffff:0:127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1]
[64:ff9b::a9fe:a9fe] [64:ff9b:1::7f00:1] [2002:7f00:1::] [2002:a9fe:a9fe::1] [2001:0:7f00:1::]
[2001:0:4136:e378::80ff:fffe]
[2001::1] [fe80::1] [fe80::1%25lo] [fe80::1%lo] [fec0::1] [fc00::1] [fd00:ec2::254] [ff02::1] [ff05::1:3] [100::1]
[2001:db8::1] [5f00::1] [3fff::1] [::1%25lo] [v1.127] [127.0.0.1] [::1]. [::1
localhost LOCALHOST localhost. LocalHost.. ⓛocalhost ｌocalhost localhost%00 localhost%2e ip6-localhost
""".split()

# Whole URLs.
FORMS = [
    "http://127.0.0.1\\@example.org:PORT/",
    "http://example.org@127.0.0.1:PORT/",
    "http://user:secret@127.0.0.1:PORT/",
    "http://@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT#@example.org/",
    "http://127.0.0.1:PORT?@example.org/",
    "http://127.0.0.1:PORT\t/",
    "http://127.0.0.1\n:PORT/",
    " http://127.0.0.1:PORT/",
    "ht\ttp://127.0.0.1:PORT/",
    "http:/127.0.0.1:PORT/",
    "http:///127.0.0.1:PORT/",
    "http:\\\\127.0.0.1:PORT/",
    "//127.0.0.1:PORT/",
    "127.0.0.1:PORT/",
    "HTTP://127.0.0.1:PORT/",
    "hTTps://127.0.0.1:PORT/",
    "http://127.0.0.1:0PORT/",
    "http://127.0.0.1:PORT:PORT/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:-1/",
    "http://127.0.0.1:22/",
    "http://127.0.0.1:x/",
    "http://",
    "http://:PORT/",
    "",
    "file:///etc/hostname",
    "ftp://127.0.0.1:PORT/",
    "gopher://127.0.0.1:PORT/_GET",
    "dict://127.0.0.1:PORT/",
    "data:text/html,x",
    "javascript:alert(1)",
    "unix:///var/run/docker.sock",
    "http+unix://127.0.0.1:PORT/",
    "http://" + "a" * 3000 + "/",
    "http://" + "a" * 64 + ":PORT/",
    "http://exa mple.org/",
    "http://127.0.0.1:PORT\u2028/",
]

NAMES = {
    "one-private.test": ["127.0.0.1"],
    "mixed.test": ["93.184.216.34", "127.0.0.1"],
    "mixed-back.test": ["127.0.0.1", "93.184.216.34"],
    "six.test": ["::1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "nat64.test": ["64:ff9b::7f00:1"],
    "sixtofour.test": ["2002:7f00:1::"],
    "metadata.test": ["169.254.169.254"],
    "cgnat.test": ["100.64.0.1"],
    "this.test": ["0.0.0.0"],
    "lab.test": ["10.1.2.3"],
    "a_b.test": ["192.168.7.7"],
}
"""Names, and what the resolver of the tests says of them."""


def urls(port: int) -> list[str]:
    """All of them."""
    found = [f"http://{one}:{port}/" for one in (*LITERALS, *NAMES)]
    return [*found, *(one.replace("PORT", str(port)) for one in FORMS)]
