//! Expressions and what they evaluate to, library by library.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Evaluation, Failure, Scope, Val, check, parse, pointed};
use crate::custom::Schema;

fn schema() -> Schema {
    Schema::compile_root(&json!({"type": "object", "properties": {
        "n": {"type": "integer"}, "d": {"type": "number"}, "s": {"type": "string"}, "b": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "other": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "at": {"type": "string", "format": "date-time"},
        "for": {"type": "string", "format": "duration"},
        "port": {"x-kubernetes-int-or-string": true},
        "namespace": {"type": "string"}, "a-b": {"type": "string"}, "a.b": {"type": "string"}, "a/b": {"type": "string"}, "a__b": {"type": "string"},
        "absent": {"type": "string"},
        "parts": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "string"}}}},
    }}))
    .unwrap()
}

fn object() -> Value {
    json!({"n": 3, "d": 2, "s": "Hello", "b": true, "list": [3, 1, 2], "set": ["a", "b"], "other": ["b", "a"], "map": {"x": 1, "y": 2},
        "at": "2026-01-02T03:04:05Z", "for": "1h30m", "port": "http", "namespace": "ns", "a-b": "dash", "a.b": "dot", "a/b": "slash", "a__b": "under",
        "parts": [{"name": "a", "size": "1Gi"}, {"name": "b", "size": "512Mi"}]})
}

/// The outcome as text: the value's debug form is not what users see, so truth values and errors only.
fn outcome(text: &str) -> Result<bool, String> {
    let (schema, object) = (schema(), object());
    let expr = parse(text).map_err(|error| error.message)?;
    check(&expr, &mut Scope::of_rule(&schema, false), true).map_err(|error| error.message)?;
    let variables = vec![("self".to_owned(), Val::of(&object, Some(&schema)))];
    match Evaluation::new(variables, u64::MAX).eval(&expr) {
        Ok(Val::Bool(flag)) => Ok(flag),
        Ok(other) => Err(format!("a {}", other.type_name())),
        Err(Failure::Error(error)) => Err(error),
        Err(Failure::OverBudget) => Err("over budget".to_owned()),
    }
}

#[test]
fn expressions_that_hold() {
    let cases = [
        "true && !false || false",
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 7 / 2 == 3 && 7 % 4 == 3 && -7 / 2 == -3",
        "1 == 1.0 && 1u == 1 && 2 > 1.5 && 0x10 == 16 && 1e3 == 1000.0",
        "'a' + \"b\" == r'ab' && 'a\\n\\x41\\u00e4'.size() == 4 && b'ab' == bytes('ab')",
        "[1, 2, 3][1] == 2 && {'a': 1}['a'] == 1 && {'a': 1}.a == 1 && 2 in [1, 2] && 'a' in {'a': 1} && !('b' in self.map)",
        "self.n == 3 && self.d == 2.0 && type(self.d) == double && type(self.n) == int && self.s == 'Hello' && self.b",
        "has(self.n) && !has(self.absent) && has(self.map.x) && !has(self.map.z)",
        "self.__namespace__ == 'ns' && self.a__dash__b == 'dash' && self.a__dot__b == 'dot' && self.a__slash__b == 'slash' && self.a__underscores__b == 'under'",
        "self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x == 2) && self.list.filter(x, x > 1) == [3, 2]",
        "self.list.map(x, x * 2) == [6, 2, 4] && self.list.map(x, x > 1, x * 2) == [6, 4] && self.map.all(k, self.map[k] > 0)",
        "self.list.all(i, x, i + x >= 1 && i < 3) && self.map.exists(k, v, k == 'y' && v == 2) && self.map.transformMap(k, v, v + 1)['x'] == 2",
        "self.list.transformList(i, x, i * x) == [0, 1, 4] && cel.bind(x, self.n * 2, x * x) == 36",
        "self.set == self.other && self.list != [1, 2, 3]",
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && self.absent == 'x')",
        "[0, 1].exists(x, 1 / x == 1)",
        "self.n > 2 ? self.b : false",
        "size(self.list) == 3 && self.s.size() == 5 && size(self.map) == 2 && 'ä'.size() == 1",
        // strings
        "self.s.startsWith('He') && self.s.endsWith('lo') && self.s.contains('ell') && self.s.matches('^H[a-z]+$') && matches('ab', 'a')",
        "self.s.lowerAscii() == 'hello' && self.s.upperAscii() == 'HELLO' && ' a '.trim() == 'a' && 'abc'.reverse() == 'cba'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'ab'.split('') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b'",
        "'tacocat'.indexOf('c') == 2 && 'tacocat'.lastIndexOf('c') == 4 && 'tacocat'.indexOf('c', 3) == 4 && 'x'.indexOf('y') == -1",
        "'hello'.charAt(1) == 'e' && 'hello'.substring(1, 3) == 'el' && 'hello'.substring(3) == 'lo' && 'aaa'.replace('a', 'b', 2) == 'bba'",
        "'%s is %d, %.2f, %x %%'.format(['it', 3, 1.5, 255]) == 'it is 3, 1.50, ff %' && '%s'.format([[1, 2]]) == '[1, 2]'",
        "'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1b22'.findAll('[0-9]+', 1) == ['1']",
        // lists and sets
        "[1, 2, 2].isSorted() && ![2, 1].isSorted() && [1, 2].sum() == 3 && [0.5, 1.5].sum() == 2.0 && [2, 1].min() == 1 && [2, 1].max() == 2",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [3, 1].sort() == [1, 3] && [1, 1].distinct() == [1] && [1, 2, 3].slice(1, 2) == [2]",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 2, 2], [2, 1]) && sets.intersects([1], [1, 2]) && !sets.intersects([1], [2])",
        "math.greatest(1, 3, 2) == 3 && math.least([4, 2]) == 2 && math.abs(-1) == 1 && math.ceil(1.2) == 2.0",
        // times
        "self.at > timestamp('2026-01-01T00:00:00Z') && self.at.getFullYear() == 2026 && self.at.getMonth() == 0 && self.at.getDate() == 2 && self.at.getHours('+02:00') == 5",
        "self.for == duration('90m') && self.for.getMinutes() == 90 && self.at + self.for > self.at && self.at - self.at == duration('0s')",
        // conversions
        "int('3') == 3 && string(3) == '3' && double('1.5') == 1.5 && uint(3) == 3u && int(3.9) == 3 && bool('true') && string(true) == 'true'",
        // quantities
        "quantity('1Gi') == quantity('1024Mi') && quantity('1').isLessThan(quantity('1.5')) && quantity('2').isGreaterThan(quantity('1')) && isQuantity('1Mi') && !isQuantity('1Zi')",
        "quantity('1k').asInteger() == 1000 && quantity('50m').isInteger() == false && quantity('1').add(quantity('2')) == quantity('3') && quantity('5').sub(2) == quantity('3') && quantity('-1').sign() == -1",
        "self.parts.all(p, quantity(p.size).compareTo(quantity('2Gi')) < 0)",
        // URLs and addresses
        "url('https://user@a.b:80/p/q?x=1&x=2#f').getHost() == 'a.b:80' && url('https://a.b:80/p').getHostname() == 'a.b' && url('https://a.b:80/p').getPort() == '80' && url('https://[::1]:80/').getHostname() == '::1'",
        "url('https://a.b/p%20q').getEscapedPath() == '/p%20q' && url('https://a.b/?x=1&x=2').getQuery() == {'x': ['1', '2']} && isURL('/a') && !isURL('a b') && url('/a').getScheme() == ''",
        "ip('1.2.3.4').family() == 4 && ip('::1').isLoopback() && isIP('fe80::1') && !isIP('1.2.3') && !isIP('::ffff:1.2.3.4') && ip('fe80::1').isLinkLocalUnicast() && ip.isCanonical('::1') && !ip.isCanonical('::0:1')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsIP(ip('10.1.2.3')) && !cidr('10.0.0.0/8').containsIP('11.0.0.1') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.0.0/8').masked() == cidr('10.0.0.0/8') && cidr('::/0').prefixLength() == 0 && isCIDR('::/128') && !isCIDR('1.2.3.4/33')",
        // formats, versions
        "!format.dns1123Label().validate('a-b').hasValue() && format.dns1123Label().validate('A').hasValue() && format.named('uuid').hasValue() && !format.named('none').hasValue()",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-rc.1').isLessThan(semver('1.0.0')) && isSemver('1.2.3-a+b') && !isSemver('1.2') && semver('1.2.3').minor() == 2",
        // optionals
        "self.?absent.orValue('x') == 'x' && self.?s.hasValue() && self.?s.value() == 'Hello' && optional.none().or(optional.of(1)).value() == 1",
        "self.map[?'x'].orValue(9) == 1 && self.map[?'z'].orValue(9) == 9 && [1][?3].hasValue() == false && optional.ofNonZeroValue('').hasValue() == false",
        "self.?s.optMap(x, x.size()).orValue(0) == 5 && {?'a': optional.none()} == {} && [?optional.of(1), 2] == [1, 2]",
        "self.port == 'http' || self.port == 80",
    ];
    for text in cases {
        assert_eq!(outcome(text), Ok(true), "{text}");
    }
}

#[test]
fn expressions_that_fail_say_why() {
    let cases = [
        ("self.absent == 'x'", "no such key: absent"),
        ("1 / 0 == 1", "division by zero"),
        ("9223372036854775807 + 1 == 0", "integer overflow"),
        ("[1][2] == 1", "index out of bounds: 2"),
        ("self.map['z'] == 1", "no such key: z"),
        ("'a' < 1", "no such overload"),
        ("'a'.matches('(')", "error parsing regexp"),
        ("quantity('x') == quantity('1')", "quantity \"x\" parse error"),
        ("optional.none().value() == 1", "optional.none() dereference"),
        ("self.nothing == 1", "undefined field 'nothing'"),
        ("self.parts.all(p, p.nothing == 1)", "undefined field 'nothing'"),
        ("other == 1", "undeclared reference to 'other' (in container '')"),
        (
            "self.s.nothing()",
            "undeclared reference to 'nothing' (in container '')",
        ),
        ("self.s", "must evaluate to bool"),
        (
            "self.n.field == 1",
            "type does not support field selection of 'field'",
        ),
        ("1 +", "Syntax error: mismatched input <EOF>"),
        ("(1 == 1", "Syntax error: mismatched input <EOF>"),
        ("'abc == 1", "Syntax error: a text is not closed"),
        ("1 == 1 1", "Syntax error: mismatched input literal"),
        ("a # b", "Syntax error: token recognition error at: '#'"),
        ("has(self)", "invalid argument to has() macro"),
    ];
    for (text, expected) in cases {
        let found = outcome(text).expect_err(text);
        assert!(found.contains(expected), "{text}: {found}");
    }
    let deep = format!("{}1 == 1{}", "(".repeat(500), ")".repeat(500));
    assert!(outcome(&deep).expect_err("deep").contains("recursion limit"));
    let error = parse("self.a &&\n &").unwrap_err();
    assert_eq!(
        pointed("self.a &&\n &", &error),
        "ERROR: <input>:2:2: Syntax error: token recognition error at: '&'\n |  &\n | .^"
    );
}

#[test]
fn what_costs_too_much_ends() {
    let nested = "[0,1,2,3,4,5,6,7,8,9]";
    let mut text = "true".to_owned();
    for depth in 0..12 {
        text = format!("{nested}.all(x{depth}, {text})");
    }
    let long = format!("'{}'", "a".repeat(1000));
    let cases = [
        text,
        "cel.bind(a, 'aaaaaaaaaaaaaaaa', cel.bind(b, a+a+a+a+a+a+a+a, cel.bind(c, b+b+b+b+b+b+b+b, cel.bind(d, c+c+c+c+c+c+c+c, cel.bind(e, d+d+d+d+d+d+d+d, cel.bind(f, e+e+e+e+e+e+e+e, cel.bind(g, f+f+f+f+f+f+f+f, g+g+g+g+g+g+g+g != 'x')))))))".to_owned(),
        format!("{nested}.all(a, {nested}.all(b, {nested}.all(c, {nested}.all(d, {long}.matches('(a|aa)+b') || true))))"),
        format!("{nested}.all(a, {nested}.all(b, {nested}.all(c, {nested}.all(d, {long}.replace('a', {long}).size() > 0))))"),
    ];
    for text in cases {
        assert_eq!(outcome(&text), Err("over budget".to_owned()), "{}", &text[..60]);
    }
}

proptest! {
    #[test]
    fn no_text_crashes_parser_checker_or_evaluation(text in "[-a-z0-9 .?:,'\"()\\[\\]{}&|!=<>+*/%\\\\]{0,40}") {
        // Any outcome is fine.
        outcome(&text).ok();
    }

    #[test]
    fn words_of_the_language_in_any_order(words in prop::collection::vec(prop::sample::select(vec![
        "self", ".", "s", "n", "list", "map", "(", ")", "[", "]", "{", "}", "?", ":", ",", "1", "'a'", "==", "&&", "in", "has", "all", "x", "size", "-", "!", "+",
    ]), 0..14)) {
        outcome(&words.join(" ")).ok();
    }
}
