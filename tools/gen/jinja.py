# SPDX-License-Identifier: MIT
"""jinja2 beside this engine's own interpreter of chat templates.

    python -m venv /tmp/venv && /tmp/venv/bin/pip install jinja2
    /tmp/venv/bin/python tools/gen/jinja.py golden tests/data/template/golden.json
    /tmp/venv/bin/python tools/gen/jinja.py check build/engine/libhearth.so ../shared/data/chat
    /tmp/venv/bin/python tools/gen/jinja.py fuzz build/engine/libhearth.so [SEED [N]]

golden writes what jinja2 makes of the templates below; tests/engine/test_jinja.c compares. check runs every template of a folder
of *golden*.json files over the conversations below, fuzz random templates. The environment is that of chat-template libraries:
ImmutableSandboxedEnvironment with trim_blocks, lstrip_blocks and loopcontrols, json.dumps as tojson, generation tags."""
import ctypes
import datetime
import glob
import json
import random
import sys
import warnings

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2026, 11, 22, 9, 5, 7)
NOW_S = int((NOW - datetime.datetime(1970, 1, 1)).total_seconds())


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_generation"), [], [], body).set_lineno(line)

    def _generation(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    e = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    e.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    e.globals["raise_exception"] = raise_exception
    e.globals["strftime_now"] = lambda f: NOW.strftime(f)
    return e


ENVIRONMENT = environment()


def reference(template, variables):
    try:
        return True, ENVIRONMENT.from_string(template).render(**variables)
    except Exception as e:  # whatever it is, there is no text
        return False, type(e).__name__ + ": " + str(e)


# ---- This engine ----

class Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("offset", ctypes.c_uint64), ("text", ctypes.c_char * 500)]


class Params(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("text", ctypes.c_char_p), ("n_text", ctypes.c_size_t), ("name", ctypes.c_char_p),
                ("json", ctypes.c_char_p), ("n_json", ctypes.c_size_t), ("messages", ctypes.c_void_p),
                ("n_messages", ctypes.c_size_t), ("tools", ctypes.c_char_p), ("add_generation_prompt", ctypes.c_bool),
                ("now", ctypes.c_int64), ("max_steps", ctypes.c_uint64), ("max_bytes", ctypes.c_uint64)]


class Engine:
    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        self.lib.hearth_free.argtypes = [ctypes.c_void_p]

    def render(self, template, variables):
        t, j = template.encode(), json.dumps(variables).encode()
        p = Params(ctypes.sizeof(Params), t, len(t), None, j, len(j), None, 0, None, False, NOW_S, 0, 0)
        out, n, e = ctypes.c_void_p(), ctypes.c_size_t(), Error()
        if self.lib.hearth_template_render(None, ctypes.byref(p), ctypes.byref(out), ctypes.byref(n), ctypes.byref(e)):
            return False, e.text.decode(errors="replace")
        s = ctypes.string_at(out.value, n.value).decode()
        self.lib.hearth_free(out)
        return True, s


# ---- Conversations ----

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a <place> & time", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "Stadt, z. B. Zürich"}, "days": {
        "type": "integer", "minimum": 1, "maximum": 1.5e1, "default": None}}, "required": ["city"]}}}
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}}


def say(*pairs):
    return [{"role": r, "content": c} for r, c in pairs]


CONVERSATIONS = [
    {"messages": say(("user", "Hello"))},
    {"messages": say(("system", "Be kind."), ("user", "Hello"))},
    {"messages": say(("user", "Hello"), ("assistant", "Hi there"), ("user", " Who are you? "))},
    {"messages": say(("system", " Two\nlines "), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d\n"))},
    {"messages": say(("user", ""), ("assistant", ""), ("user", "x"))},
    {"messages": say(("system", ""), ("user", "\u00dcn\u00ef \u65e5\u672c\u8a9e \U0001f600 \u200d \u00a0 end\u00a0"))},
    {"messages": say(("user", "2 + 2?"), ("assistant", "<think>\nlet me see\n</think>\n\n4"), ("user", "and 3?"))},
    {"messages": say(("user", "q"), ("assistant", "a")) + [{"role": "user", "content": "r"}, {
        "role": "assistant", "content": "s", "reasoning_content": "because"}, {"role": "user", "content": "t"}]},
    {"messages": say(("system", "Use tools."), ("user", "Weather?")), "tools": [TOOL]},
    {"messages": say(("user", "Weather?")) + [{"role": "assistant", "content": None, "tool_calls": [CALL]}, {
        "role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "{\"t\": -3.5}"}], "tools": [TOOL, TOOL]},
    {"messages": say(("user", "Weather?")) + [{"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}, {
        "role": "tool", "tool_call_id": "abcdef123", "content": "cold"}, {"role": "assistant", "content": "It is cold."}]},
    {"messages": say(("user", "{{ x }} {% raw %} <|im_end|> </s> [INST] \\n \"quoted\" 'single' & <b>"))},
    {"messages": say(("assistant", "I begin."), ("user", "no"))},
    {"messages": say(("system", "a"), ("system", "b"), ("user", "c"), ("user", "d"))},
    {"messages": []},
    {"messages": say(("user", "x")), "enable_thinking": False, "tools": [], "date_string": "22 Nov 2026"},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "parts"}, {"type": "image"}]}]},
    {"messages": say(("system", "You are a helpful assistant"), ("user", "Hello"), ("assistant", "Hi there"), ("user", "Who are you"),
                     ("assistant", "   I am an assistant   "), ("user", "Another question"))},
]
for c in CONVERSATIONS:
    c.update(bos_token="<s>", eos_token="</s>")
CONVERSATIONS += [dict(c, add_generation_prompt=True) for c in CONVERSATIONS]


def check(path, folder):
    engine, n, bad, refused = Engine(path), 0, 0, 0
    templates = []
    for name in sorted(glob.glob(folder + "/*golden*.json")):
        data = json.load(open(name))
        if isinstance(data, dict):
            templates += [c["template"] for c in data["cases"]]
        else:
            for c in data:
                n += 1
                if engine.render(c["template"], c["vars"])[::-1] != reference(c["template"], c["vars"])[::-1]:
                    a, b = engine.render(c["template"], c["vars"]), reference(c["template"], c["vars"])
                    if a[0] or b[0]:
                        bad += 1
                        print("differs:", c["template"], a, b)
    print(n, "cases,", bad, "differ")
    n = bad = 0
    for t in templates:
        for c in CONVERSATIONS:
            for extra in {}, {"additional_special_tokens": ["<|role_sep|>", "<|message_sep|>", "[", "]"]}:
                a, b = engine.render(t, dict(c, **extra)), reference(t, dict(c, **extra))
                n += 1
                refused += not b[0]
                if a[0] != b[0] or (a[0] and a[1] != b[1]):
                    bad += 1
                    print("differs:", t[:60], c, a, b)
    print(len(templates), "templates,", n, "prompts,", refused, "refused by both,", bad, "differ; jinja2", jinja2.__version__)
    return bad


# ---- Golden templates: every construct at least once ----

VARIABLES = {
    "s": "Hello, World", "t": "  pad\tded \n", "u": "naïve Ünïcödé ß ﬁ 日本", "e": "", "i": 7, "n": -3, "z": 0, "f": 2.5, "g": 1e16,
    "h": -0.1, "b": True, "c": False, "x": None, "l": [3, 1, 2], "m": ["b", "A", "c", "a"], "k": [],
    "d": {"a": 1, "B": "two", "c": [1, 2], "items": 5}, "o": {"name": "Bob", "tags": ["x", "y"], "deep": {"k": [{"v": 1}, {"v": None}]}},
    "p": [{"n": "x", "v": 2}, {"n": "Y", "v": 1}, {"n": "x"}], "html": "<a & 'b'>\"q\"", "big": 12345678901234567890,
    "pairs": [["k", "v"], ["q", 1]]}

STATEMENTS = r"""
{% if b %}yes{% elif c %}no{% else %}never{% endif %}
{% if c %}1{% elif z %}2{% elif i %}3{% endif %}
{% for v in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}
{% for v in l %}{{ loop.previtem }}<{{ v }}>{{ loop.nextitem }};{% endfor %}
{% for v in l if v > 1 %}{{ v }}{{ loop.last }}{% else %}none{% endfor %}
{% for v in l if v > 9 %}{{ v }}{% else %}none{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}
{% for v in [[1, [2, [3]]]] recursive %}{% if v is iterable %}({{ loop(v) }}){% else %}{{ v }}@{{ loop.depth }}{% endif %}{% endfor %}
{% for v in range(9) %}{% if v == 2 %}{% continue %}{% endif %}{% if v == 5 %}{% break %}{% endif %}{{ v }}{% endfor %}
{% for v in m %}{{ loop.cycle('odd', 'even') }}{{ loop.changed(v | lower) }} {% endfor %}
{% set ns = namespace(found=false, n=0) %}{% for v in l %}{% set ns.n = ns.n + v %}{% if v == 1 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.n }}{{ ns.found }}
{% set q = 1 %}{% for v in l %}{% set q = v %}{% endfor %}{{ q }}
{% set q %} block {{ i }} {% endset %}[{{ q }}]
{% set q | trim | upper %} block {{ s }} {% endset %}[{{ q }}]
{% set a, r = 1, (2, 3) %}{{ a }}{{ r }}
{% macro f(a, r=2, w='x' ~ a) %}{{ a }}{{ r }}{{ w }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1) }}|{{ f(1, w=3) }}|{{ f(1, 2, 3, 4, z=5) }}|{{ f() }}
{% macro f(a) %}<{{ caller(a) }}>{% endmacro %}{% call(v) f(3) %}{{ v * 2 }}{{ s }}{% endcall %}
{% macro fact(a) %}{% if a < 2 %}1{% else %}{{ a * (fact(a - 1) | int) }}{% endif %}{% endmacro %}{{ fact(6) }}
{% macro f() %}{{ later }}{% endmacro %}{% set later = 5 %}{{ f() }}{{ f.name }}{{ f.arguments }}{{ f.catch_kwargs }}
{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{% endmacro %}{{ f(w=2) }}
{% filter upper | replace('A', '4') %}banana {{ s }}{% endfilter %}
{% with q = 1, r = i %}{{ q + r }}{% endwith %}{{ q }}
{% raw %}{{ not }} {% this %} {# either #}{% endraw %}!
a{# gone #}b{#- gone -#} c
{% generation %}{{ s }}{% endgeneration %}
{%- if b -%}   tight   {%- endif -%}  x
   {%+ if b %} kept{% endif +%}
  {{- s -}}  y
  {% if b %}  
 line {% endif %}
{% for v in l %}
    {{ v }}
{% endfor %}
{% print s, i %}
{{ raise_exception('no ' ~ s) }}
{{ undefined_thing.attribute }}
{{ undefined_thing }}{{ o.missing }}{{ o['missing'] is defined }}{{ l[9] is undefined }}
{{ o.missing.more }}
{{ l.append(4) }}
{{ d.update({}) }}
{{ l.append is defined }}{{ s.__class__ is defined }}{{ d.pop is defined }}
{{ s.__class__.mro }}
{{ x.y }}
{{ nothing() }}
{{ s | nosuchfilter }}
{% if c %}{{ s | nosuchfilter }}{% endif %}ok
{% if s is nosuchtest %}{% endif %}
{% nosuch %}
{% if b %}
{{ 'open
{{ 1 + }}
{% for %}{% endfor %}
{% include 'a' %}
{{ strftime_now('%Y-%m-%d %H:%M:%S %j %a %A %b %B %y %I %p %% %d') }}
{{ cycler('a', 'b').next() }}{% set c2 = cycler(1, 2) %}{{ c2.next() }}{{ c2.current }}{{ c2.next() }}{{ c2.next() }}{{ c2.reset() }}{{ c2.current }}
{% set j = joiner('; ') %}{% for v in l %}{{ j() }}{{ v }}{% endfor %}
{% set g = l | map('string') %}{{ g | list }}{{ g | list }}{{ g | first is defined }}
{% break %}
{{ range(200000) }}
{{ dict(a=1, **{'b': 2}) }}{{ dict(pairs) }}{{ namespace(a=1).a }}
""".strip("\n").split("\n")

EXPRESSIONS = r"""
1 + 2 * 3 ** 2 // 4 % 5 - -6
2 ** 3 ** 2
-2 ** 2
7 / 2, 7 // 2, -7 // 2, -7 % 3, 7 % -3, 7.5 // 2, -7.5 % 2
1 < 2 < 3, 1 < 3 < 2, 1 == 1.0 == true
not b and c or i
'a' ~ 1 ~ none ~ true ~ 1.0
'ab' * 3, [1] * 2, 3 * 'x', -1 * 'x'
'ell' in s, 1 in l, 'a' in d, 9 not in l
s[0], s[-1], s[1:4], s[::-1], s[::2], s[-3:], u[2:5], l[1:], l[::-1], (1, 2, 3)[1:]
'yes' if b else 'no', ('gone' if c)
{'a': 1, 2: [1, (2,), ()], none: 1.5}
[1e16, 1e-5, 0.1, 1e22, 123456789.125, 1.0, 1e400, 5e-324, 0.30000000000000004]
big, -9223372036854775807 - 1, 0x1F, 0b101, 0o17, 1_000
"it's", 'say "x"', 'both \' and "', 'tab\tnl\nuni\u00e9 \x41 \\', 'a' 'b'
l | sort, m | sort, m | sort(case_sensitive=true), p | sort(attribute='n') | map(attribute='n') | list
l | sum, l | min, l | max, k | max is defined, p | sum(attribute='v', start=1) is defined
p | selectattr('v', 'defined') | map(attribute='v') | list, p | rejectattr('v') | list
p | map(attribute='v', default=0) | list, m | map('upper') | join('-'), l | select('odd') | list, l | reject('gt', 1) | list
p | groupby('n') | list
o.deep.k | map(attribute='v') | list, o | tojson, o['deep']['k'][0].v, o.get('name'), o.get('zz', 5)
d | dictsort, d | dictsort(by='value') is defined
d | items | list, d.items() | list, d.keys() | list, d.values() | list, d['items']
d.keys(), d.items()
l | batch(2) | list, l | batch(2, 0) | list, m | slice(3) | list, m | slice(3, 'z') | list
m | unique | list, ['a', 'A', 1, 1.0, true] | unique | list
l | first, l | last, k | first is undefined, s | first, s | last, l | reverse | list, s | reverse
l | length, s | length, u | length, d | count
s | upper, s | lower, s | title, s | capitalize, u | upper, u | title, 'ΑΣ ΣΑΣ' | lower, "they're bill's" | title
t | trim, s | trim('Hd'), s | replace('l', 'L'), s | replace('l', 'L', 1), s | center(20) | length, s | wordcount
s | truncate(5), s | truncate(8, true, '~', 0), 'a\nb\n\nc' | indent, 'a\nb\n\nc' | indent(2, true, true), 'a\nb' | indent('> ')
'42' | int, '0x1A' | int(0, 16), 'z' | int(7), '3.9' | int, 3.9 | int, '1e3' | float, 'z' | float(1.5), 'inf' | float
2.5 | round, 3.5 | round, 2.675 | round(2), 1234 | round(-2), 2.1 | round(0, 'ceil'), 2.99 | round(1, 'floor'), 42 | round
n | abs, h | abs, 1500000 | filesizeformat, 1024 | filesizeformat(true)
html | e, html | e | e, (html | safe) ~ '<', html | safe | e, html | forceescape, '<b>x  y</b> &amp;' | striptags, html | urlencode, {'a b': 'c&d'} | urlencode
d | tojson, d | tojson(indent=2), u | tojson(ensure_ascii=true), {'b': 1, 'a': [1.0, none, true]} | tojson(sort_keys=true, separators=(',', ':')), [] | tojson(indent=2), '/\x7f\x00<>' | tojson
x | default('d'), e | default('d'), e | default('d', true), undef | default, undef | d([])
'%s-%05d-%.2f-%x-%%-%r' % (s, i, f, 255, 'q'), '%(a)s' | format(a=1), '%s' | format(l), '%-5s|%5s|%+d' % ('a', 'b', 3), '%e %g' % (f, g)
'{} {1}'.format(1, 2) is defined
'{0} {x!r} {0:>5} {y.name} {z[0]}'.format(i, x='q', y=o, z=l), '{:,} {:08.3f} {:x} {:^7}|'.format(1234567, 3.14159, 255, 'mid'), '{{}}'.format()
s.split(), s.split(', '), 'a,b,c'.split(',', 1), 'a,b,c'.rsplit(',', 1), ' a  b '.split(), ' a  b c'.rsplit(none, 1), 'a\nb\r\nc'.splitlines()
s.startswith('Hell'), s.endswith(('x', 'd')), s.find('o'), s.rfind('o'), s.count('l'), s.index('W'), s.find('zz'), 'éa'.find('a')
s.strip('Hd'), t.lstrip(), t.rstrip(), s.partition(', '), s.rpartition('o'), s.removeprefix('He'), s.removesuffix('ld')
s.upper(), s.swapcase(), s.title(), s.zfill(15), '-5'.zfill(4), s.center(16, '*'), s.ljust(14) ~ '|', s.rjust(14), '-'.join(m), s.isalpha(), '12'.isdigit(), 'ab'.islower()
i is odd, i is even, i is divisibleby 7, i is number, f is float, b is boolean, s is string, d is mapping, l is sequence, x is none, undef is defined, b is true, 3 is in [3], 'a' is eq('a'), s is callable, range is callable, i is gt 3, 'x' is lower, (html | e) is escaped, x is sameas none
i if i is defined and i is not none else 'none'
range(5) | list, range(2, 9, 3) | list, range(3, 0, -1) | list, range(4)
l == [3, 1, 2], (1, 2) == [1, 2], {'a': 1} == {'a': 1.0}, undef == other, 'a' < 'b', [1, 2] < [1, 3]
1 < 'a'
1 + 'a'
'a' + none
1 // 0
l['a']['b']
s.index('zz')
l | first | upper | length
d.a, d['a'], d.get('a'), d.items is callable, d['get'] is callable, p[0].n, p.0.n, l.0
true and 'x', 0 or 'y', none and 1, not none
lipsum is defined
""".strip("\n").split("\n")


def golden(path):
    rows = []
    for t in STATEMENTS + ["{{ (%s) }}" % e for e in EXPRESSIONS] + EXTRA:
        ok, text = reference(t, VARIABLES)
        rows.append({"template": t, "want": text} if ok else {"template": t, "fails": text})
    variables = json.dumps(VARIABLES)
    with open(path, "w") as f:
        f.write('{"jinja2": %s, "now": %d,\n"variables": %s,\n"cases": [\n' % (json.dumps(jinja2.__version__), NOW_S, json.dumps(variables)))
        f.write(",\n".join(json.dumps(r) for r in rows) + "\n]}\n")
    print(len(rows), "cases,", sum("fails" in r for r in rows), "of them refused")


EXTRA = [
    "{% if b %}\nline\n{% endif %}\n", "a\n  {% if b %}\n  b\n  {% endif %}\nc\n\n", "\r\na\r{{ i }}\r\n", "  {# c #}\nx", "  {#- c -#}\n x",
    "{%- for v in l %}\n    {%- if v == 1 -%}\n one \n    {%- else %}\n  other\n    {%- endif %}\n{%- endfor %}\n", "  {%- raw -%}\n x {% endraw %}\n  y",
    "\t{% set q = 1 %}\n\t{{ q }}\n", "{{ '}}' }}{{ {'a': {'b': 1}}['a'] }}", "{{-1}}{{+1}}", "x\n{% endraw %}", "{% raw %}x", "{# x",
    "{{ {'a': 1}\n['a'] }}", "{% set x, = [1] %}{{ x }}", "{% set d.a = 1 %}", "{% for a, w in [[1]] %}{% endfor %}", "{% macro m(a, b=1, c) %}{% endmacro %}",
    "{{ ns.a }}{% set ns = namespace() %}{% set ns.a = 'b' %}{{ ns.a }}{{ ns }}", "{% set true = 1 %}", "{{ s s }}", "{{ (1, 2 }}", "{{ [1, 2) }}",
]

# ---- Random templates ----

R = random.Random(1)
names=list(VARIABLES)+["undef","loop","ns"]
lits=["1","0","-2","3.5","1e3","'ab'","\"q'z\"","'é\\n'","true","none","False","[1,'a',none]","{'a':1,2:'b'}","(1,2)","()","[]","{}","'a,b,,c'","100","0x1F","1_000","'%s-%d'","'{} {x}'","' x '","1.0","'12'","'3.7'","1e-7","123456789.125"]
filters=["abs","capitalize","center(9)","default('D')","d('D',true)","e","escape","first","float","forceescape","indent","indent(2,true)","indent('>',blank=true)","int","int(5)","items|list","join","join(', ')","join('-',attribute='n')","last","length","list","lower","map('upper')|list","map(attribute='n')|list","map(attribute='v',default=9)|list","max","min","reject('odd')|list","rejectattr('v')|list","replace('a','b')","replace('l','L',1)","reverse|list","reverse","round","round(1)","round(2,'ceil')","round(method='floor')","safe","select|list","select('string')|list","selectattr('v','defined')|list","selectattr('n','equalto','x')|list","slice(2)|list","batch(2)|list","batch(3,'z')|list","sort","sort(reverse=true)","sort(case_sensitive=true)","sort(attribute='n')","sort(attribute='n,v')","string","sum","sum(attribute='v')","sum(start=10)","title","tojson","tojson(indent=2)","tojson(ensure_ascii=true)","tojson(sort_keys=true)","tojson(separators=(',',':'))","trim","trim('H d')","truncate(5)","truncate(8,true)","truncate(9,false,'~',0)","unique|list","upper","wordcount","dictsort","dictsort(by='value')","dictsort(reverse=true)","count","striptags","urlencode","filesizeformat","attr('a')","groupby('n')","groupby('v',default=0)","format(1,2)","format('x')","center","wordcount"]
tests=["defined","undefined","none","string","number","integer","float","boolean","true","false","mapping","iterable","sequence","callable","odd","even","divisibleby(2)","divisibleby 3","eq(1)","equalto 'ab'","ne(2)","lt(3)","gt 1","in([1,2,'a'])","in 'abc'","sameas(true)","lower","upper","escaped","filter","test"]
methods=["upper()","lower()","strip()","lstrip()","rstrip('d ')","split()","split(',')","split(',',1)","rsplit(None,1)","rsplit('l',1)","title()","capitalize()","swapcase()","replace('l','LL')","replace('','-')","replace('l','',1)","startswith('H')","endswith(('d','x'))","find('o')","rfind('o')","count('l')","index('o')","join(['x','y'])","zfill(8)","splitlines()","splitlines(true)","isdigit()","isalpha()","isupper()","islower()","isspace()","istitle()","isalnum()","center(20,'*')","ljust(20)","rjust(15,'.')","partition('o')","rpartition('o')","removeprefix('He')","removesuffix('ld')","format(1,x=2)","items()","keys()","values()","get('a')","get('zz',3)","get('name')","append(1)","pop()","copy()","index(1)","count(1)","expandtabs()","encode()","bit_length()","is_integer()","isidentifier()","casefold()","update({})","find('l',3)","startswith('W',7)","count('')","isnumeric()","isdecimal()","isascii()","isprintable()"]
attrs=["a","name","tags","deep","items","real","__class__","_x","n","0","v"]
fmts=["'%5d|%-5s|%05.1f'%(i,s,f)","'%s'%l","'%r %s'%(s,u)","'%x %X %o'%(255,255,8)","'%e %g'%(f,g)","'%+d % d'%(i,i)","'%(a)s-%(B)r'%d","'%%'%()","'%c'%65","'{:>8}|{:<6}|{:^9}'.format(s,i,f)","'{:05d} {:,} {:.3f} {:e} {:%}'.format(i,1234567,f,g,f)","'{0} {1!r} {0}'.format(i,s)","'{a.name} {b[0]}'.format(a=o,b=l)","'{:{w}}'.format(s,w=20)","'{:x} {:#x} {:b} {:#o} {:X}'.format(255,255,5,8,255)","'{:g} {:.3g} {:G}'.format(f,g,1e-10)","'{{}}'.format()","'{:08.2f}|{:+}|{: }'.format(f,i,i)","'{:*^10}'.format('é')","'{:.2}'.format(s)","'{:.3}|{:.1}'.format(f,g)","'{:_}'.format(1234567)","'{:08,}'.format(1234)","'%.3s|'%s","'%*d'%(5,i)","'%5.2f%%'%f","'%s %s'%(1,)","'%d'%'x'","'%#x'%255","'%i'%2.7","'%G'%1e20"]
def atom(dp):
    r=R.random()
    if r<0.5: return R.choice(names)
    if r<0.75 or dp<=0: return R.choice(lits)
    if r<0.8: return R.choice(fmts)
    if r<0.85: return "["+", ".join(expr(dp-1) for _ in range(R.randrange(3)))+"]"
    if r<0.9: return "{"+", ".join(R.choice(["'k'","1","x","s"])+": "+expr(dp-1) for _ in range(R.randrange(3)))+"}"
    if r<0.95: return "("+expr(dp-1)+")"
    return R.choice(["range(5)","range(2,9,3)","range(5,0,-2)","dict(a=1,b=s)","dict(pairs)","cycler('a','b')","namespace(a=1).a","joiner('x')()","strftime_now('%d %b %Y %H:%M %j %A')"])
def expr(dp=3):
    r=R.random()
    if dp<=0 or r<0.15: return atom(dp)
    if r<0.3: return atom(dp-1)+"|"+R.choice(filters)
    if r<0.36: return expr(dp-1)+"|"+R.choice(filters)+"|"+R.choice(filters)
    if r<0.46: return atom(dp-1)+"."+R.choice(methods)
    if r<0.5: return atom(dp-1)+"."+R.choice(attrs)
    if r<0.57: return atom(dp-1)+"["+R.choice(["0","-1","1:","::-1",":2","1:-1","::2","-3:","5:1:-1","'a'","'name'","i","100","s","'upper'","1.0","true","1,2","","n:z"])+"]"
    if r<0.72: return expr(dp-1)+" "+R.choice(["+","-","*","/","//","%","**","~","==","!=","<",">","<=",">=","in","not in","and","or","+","~"])+" "+expr(dp-1)
    if r<0.78: return atom(dp-1)+R.choice([" is "," is not "])+R.choice(tests)
    if r<0.82: return R.choice(["not ","-","+"])+expr(dp-1)
    if r<0.88: return expr(dp-1)+" if "+expr(dp-1)+R.choice([" else "+expr(dp-1),""])
    if r<0.92: return "("+expr(dp-1)+") < "+atom(0)+" <= "+atom(0)
    return atom(dp-1)+"."+R.choice(methods)+"|"+R.choice(filters)
W=["\n","  \n","\n  ","text"," ","\n\n","a\n\t","é"]
def ws(): return R.choice(["","-","","","+"])
def blk(s): return "{%"+ws()+" "+s+" "+R.choice(["","-","","+"])+"%}"
def stmts(dp,loop=False): return "".join(stmt(dp,loop) for _ in range(R.randrange(1,4)))
def stmt(dp,loop=False):
    r=R.random()
    if dp<=0 or r<0.2: return R.choice(W)
    if r<0.5: return "{{"+R.choice(["","-",""])+" "+expr(2)+" "+R.choice(["","-",""])+"}}"
    if r<0.6: return blk("if "+expr(1).replace(" if "," and ").replace(" else "," or "))+stmts(dp-1,loop)+(blk("elif "+atom(0))+stmts(dp-1,loop) if R.random()<.3 else "")+(blk("else")+stmts(dp-1,loop) if R.random()<.5 else "")+blk("endif")
    if r<0.72:
        head=R.choice(["v in l","v in m","a, w in d.items()","v in s","v in p if v.v","v in undef","v in range(3)","v in l recursive","v in d","v in x","v in p|map(attribute='n')","v in pairs","a, w in pairs","v in l if v not in ns.seen"])
        body=stmts(dp-1,True)+R.choice(["{{ loop.index }}","{{ loop.last }}{{ loop.first }}","{{ loop.revindex }}/{{ loop.length }}","{{ loop.previtem }}>{{ loop.nextitem }}","{{ loop.cycle('o','e') }}","{{ loop.changed(v) }}","{{ v }}","{% if loop.index > 1 %}{% break %}{% endif %}","{% if loop.first %}{% continue %}{% endif %}","{% set ns.a = ns.a + 1 %}","{% set ns.seen = ns.seen + [v] %}","{% set i = v %}{{ i }}","{{ loop.index0 }}{{ loop.depth }}"])
        return blk("for "+head)+body+(blk("else")+stmts(dp-1) if R.random()<.3 else "")+blk("endfor")
    if r<0.8: return blk("set "+R.choice(["i","q","ns.a","q, r","s"])+" = "+expr(2))
    if r<0.84: return blk("set "+R.choice(["q","s"])+R.choice([""," | upper"," | trim | title"]))+stmts(dp-1)+blk("endset")+"{{ q }}"
    if r<0.89: return blk("macro "+R.choice(["mm(a, b=2)","mm()","mm(a='x', b=a)","mm(a)"]))+stmts(dp-1)+R.choice(["{{ a }}/{{ b }}","{{ varargs }}","{{ kwargs }}","{{ caller() }}",""])+blk("endmacro")+R.choice(["{{ mm(1) }}","{{ mm() }}","{{ mm(1, 2, 3) }}","{{ mm(b=5, a=1) }}","{{ mm(z=1) }}","{% call mm(1) %}C{% endcall %}","{{ mm(*l) }}","{{ mm(**{'a': 3}) }}","{{ mm.name }}{{ mm.arguments }}"])
    if r<0.92: return blk("filter "+R.choice(["upper","indent(2)","trim|title","replace('a','b')"]))+stmts(dp-1)+blk("endfilter")
    if r<0.94: return blk("with i = "+atom(0)+", q = 3")+stmts(dp-1)+"{{ i }}{{ q }}"+blk("endwith")
    if r<0.96: return "{#"+ws()+" note "+ws()+"#}"+R.choice(W)
    if r<0.98: return "{%"+ws()+" raw "+R.choice(["","-"])+"%} {{ x }} {% if %}"+blk("endraw")
    return blk("generation")+stmts(dp-1)+blk("endgeneration")


def fuzz(path, seed, n):
    engine, bad, fine = Engine(path), 0, 0
    R.seed(seed)
    for _ in range(n):
        t = "{% set ns = namespace(a=1, seen=[]) %}" + ("{{ " + expr(3) + " }}" if R.random() < .6 else stmts(3))
        a = reference(t, VARIABLES)
        if a[0] and any(w in a[1] for w in (" object at 0x", "<function", "uilt-", "Cycler")):
            continue  # addresses
        b = engine.render(t, VARIABLES)
        fine += a[0]
        if a[0] == b[0] and (a[1] == b[1] or not a[0]):
            continue
        if not b[0] and any(w in b[1] for w in ("64 bits", "complex", "not known here")):
            continue  # said to be so in docs/templates.md
        bad += 1
        print("differs:", t, "\n  jinja2", a, "\n  here  ", b)
    print(n, "templates,", fine, "with a text,", bad, "differ; jinja2", jinja2.__version__)
    return bad


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if len(sys.argv) >= 3 and sys.argv[1] == "golden":
        golden(sys.argv[2])
    elif len(sys.argv) >= 4 and sys.argv[1] == "check":
        sys.exit(check(sys.argv[2], sys.argv[3]) > 0)
    elif len(sys.argv) >= 3 and sys.argv[1] == "fuzz":
        sys.exit(fuzz(sys.argv[2], int((sys.argv + ["1"])[3]) if len(sys.argv) > 3 else 1,
                      int(sys.argv[4]) if len(sys.argv) > 4 else 2000) > 0)
    else:
        sys.exit(__doc__)
