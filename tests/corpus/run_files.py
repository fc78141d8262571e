"""Bad run files: whole ones with the line that each must give, and the pieces that the fuzz makes more of."""

from itertools import pairwise

GOOD = """\
name: tiny
generations: 2
population:
  size: 4
  lives: 2
  founders:
    - {name: bold, strategy: Walk far.}
    - {name: timid, strategy: Stay near.}
engine: {kind: scripted}
trainer: {objective: {kind: scripted}}
metrics: {enabled: false}
"""

AMBIGUOUS = ["0777", "-0777", "00", "1:30", "190:20:30.15", "1_000", "1_000.5", "+0x1f", "0x_1f", "0b11", "0o17"]
AMBIGUOUS += ["yes", "Yes", "no", "NO", "on", "off", "Off"]
"""Plain words that YAML 1.1 and YAML 1.2 read as different things."""

REFUSED_NUMBERS = [
    *("1e400", "-1e400", ".inf", "-.inf", ".nan", "1e3", "1.5", "-1", "0", "true", "null", "~", "'2'", "2001-01-01"),
    *("1" + 400 * "0", 5000 * "9", "0x" + 2000 * "f", "NaN", "Infinity", "1,000", "١", "½", "{}", "[]", "[2]"),
]
"""What no whole positive number is."""

NAMES = [
    *(
        "../x",
        "a/b",
        ".",
        "..",
        "/etc",
        "CON",
        "-rf",
        "'a\\n'",
        '"a\\n"',
        '"a\\u0000"',
        "ａ",
        "\N{CYRILLIC SMALL LETTER A}b",
    ),
    *('"a\u200fb"', '"a\\u202eb"', '"\\ud800"', "a b", "''", 300 * "a", "${HOME}", "'{{name}}'", "~", "A", "é", "2.5"),
    *('"a\\e[31m"', "'a;id'", "$(id)", "a%00", "s3://b"),
]
"""What no name of a run or a lineage is."""

SHAPES = {
    "empty": (b"", "got NoneType, expected a mapping"),
    "comment": (b"# nothing\n", "got NoneType, expected a mapping"),
    "text": (b"just text", "got str, expected a mapping"),
    "NUL": (GOOD.replace("tiny", "ti\0ny").encode(), "unacceptable character #x0000"),
    "escape": (GOOD.replace("tiny", "ti\x1b[31mny").encode(), "unacceptable character #x001b"),
    "Latin-1": (GOOD.replace("Walk", "Gehe \xfcber").encode("latin-1"), "not UTF-8 at byte"),
    "UTF-16": (GOOD.encode("utf-16"), "not UTF-8 at byte 0"),
    "Python tag": (b"name: !!python/object/apply:os.system ['touch owned']\n", "tags are not allowed"),
    "Python name": (b"name: !!python/name:os.system\n", "tags are not allowed"),
    "binary tag": (b"name: !!binary aGk=\n", "tags are not allowed"),
    "own tag": (b"!run\nname: x\n", "tags are not allowed"),
    "alias": (b"a: &a {b: c}\nd: *a\n", "line 2: aliases are not allowed"),
    "alias bomb": (
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{c}: &{c} [{', '.join(9 * [f'*{b}'])}]\n" for b, c in pairwise("abcdefghi"))
        ).encode(),
        "line 2: aliases are not allowed",
    ),
    "merge key": (b"<<: {name: x}\n", "<<: unknown key"),
    "depth of lists": (b"name: " + 5000 * b"[" + 5000 * b"]", "more than 20 levels"),
    "depth of sections": (b"name: " + 300 * b"{a: " + b"1" + 300 * b"}", "more than 20 levels"),
    "depth of lines": ("".join(f"{n * ' '}a:\n" for n in range(1000)).encode(), "more than 20 levels"),
    "duplicate key": (f"{GOOD}seed: 1\nseed: 2\n".encode(), "duplicate key 'seed'"),
    "duplicate inner key": (GOOD.replace("size: 4", "size: 4\n  size: 5").encode(), "duplicate key 'size'"),
    "number as key": (b"7: x\n", "key 7 is not text"),
    "yes as key": (b"yes: x\n", "'yes' is not the same to every reader"),
    "two documents": (f"{GOOD}---\n{GOOD}".encode(), "found another document"),
    "tabs": (b"population:\n\tsize: 4\n", "cannot start any token"),
    "unclosed": (b"name: {a: [b, 'c\n", "found unexpected end of stream"),
    "JSON cut short": (b'{"name": "tiny", "generations": ', "expected the node content"),
    "near key": (GOOD.replace("size: 4", "siez: 4").encode(), 'population.siez: unknown key (did you mean "size"?)'),
    "near section": (f"{GOOD}populatoin: {{}}\n".encode(), 'did you mean "population"?'),
    "control character in a strategy": (
        GOOD.replace("Walk far.", '"Walk\\e[2J"').encode(),
        "expected one line of visible",
    ),
    "no strategy": (GOOD.replace("Walk far.", "''").encode(), "population.founders.0.strategy"),
    "long strategy": (GOOD.replace("Walk far.", 2001 * "x").encode(), "at most 2000 characters"),
    "bad model": (f'{GOOD}model: "a\\nb"\n'.encode(), "model: got 'a\\nb', expected one line of visible characters"),
    "long model": (f"{GOOD}model: {5000 * 'x'}\n".encode(), "at most 1000 characters"),
    "bad host": (GOOD.replace("enabled: false", "host: a..b").encode(), "metrics.host: got 'a..b'"),
    "no host": (GOOD.replace("enabled: false", "host: ''").encode(), "metrics.host: got ''"),
    "huge port": (GOOD.replace("enabled: false", "port: 70000").encode(), "metrics.port: got 70000"),
    "endless disk": (f"{GOOD}ledger: {{min_free_gib: 1.0e+300}}\n".encode(), "ledger.min_free_gib"),
    "world of a path": (f"{GOOD}environment: {{name: ../x.py}}\n".encode(), "environment.name: got '../x.py'"),
    "world of another kind": (f"{GOOD}environment: {{name: 7}}\n".encode(), "environment.name: got 7"),
    "strict world": (
        f"{GOOD}environment: {{settings: {{bushes: '3'}}}}\n".encode(),
        "environment.settings.bushes: got '3'",
    ),
    "true in a world": (
        f"{GOOD}environment: {{settings: {{size: true}}}}\n".encode(),
        "environment.settings.size: got True",
    ),
    "one elite too many": (f"{GOOD}selection: {{elites: 4}}\n".encode(), "selection.elites: got 4"),
    "nobody survives": (
        f"{GOOD}selection: {{survivors: 0.01}}\n".encode(),
        "selection.survivors: 0.01 of 4 leaves nobody",
    ),
    "all survive twice": (f"{GOOD}selection: {{survivors: 1.5}}\n".encode(), "selection.survivors: got 1.5"),
    "rank above the engine's": (
        GOOD.replace("{kind: scripted}", "{kind: vllm, serving: lora}", 1)
        .replace("trainer: {objective: {kind: scripted}}", "trainer: {lora: {rank: 64}}")
        .encode(),
        "trainer.lora.rank: got 64, expected at most engine.max_rank 16",
    ),
}
"""Name -> (bytes of a run file, words of the line it must give)."""

RAW = [
    *AMBIGUOUS,
    *(number for number in REFUSED_NUMBERS if len(number) < 100),
    *NAMES[:-6],
    *(
        "!!python/object/apply:os.system [id]",
        "!!binary aGk=",
        "!x 1",
        "&a x",
        "*a",
        "<<",
        "=",
        "|",
        ">",
        "%x",
        "@x",
        "`x",
    ),
    *(
        "? x",
        "- a",
        "a: b: c",
        "{a: {b: {c: {}}}}",
        "[[[[]]]]",
        30 * "[" + 30 * "]",
        "{a: 1, a: 2}",
        "{1: 2}",
        "{yes: 1}",
    ),
    *(
        "0.0",
        "-0",
        "+1",
        "1.",
        ".5",
        "1e-400",
        "9223372036854775807",
        "9223372036854775808",
        "3e-3",
        "0x1f",
        "'",
        '"',
        "#",
    ),
    *("forage", "json:loads", "vllm", "scripted", "sft", "custom", "rmst", "ray", "inprocess", "merged", "lora"),
]
"""Pieces of YAML that may stand anywhere instead of what is right there."""
