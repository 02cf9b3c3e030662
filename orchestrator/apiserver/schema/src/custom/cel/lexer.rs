//! The words of CEL.

use super::ast::Literal;

/// A word and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Name(String),
    Literal(Literal),
    Sign(&'static str),
    End,
}

/// What can't be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) at: usize,
    pub(crate) message: String,
}

/// Longer ones first.
const SIGNS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", ".?", "[?", "{?", "(", ")", "[", "]", "{", "}", ".", ",", "?", ":",
    "<", ">", "+", "-", "*", "/",
];

/// Takes a text apart.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, SyntaxError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut found = Vec::new();
    loop {
        let token = lexer.next()?;
        let is_end = token.kind == Kind::End;
        found.push(token);
        if is_end {
            return Ok(found);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn fail<T>(&self, at: usize, message: impl Into<String>) -> Result<T, SyntaxError> {
        Err(SyntaxError {
            at,
            message: format!("Syntax error: {}", message.into()),
        })
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn next(&mut self) -> Result<Token, SyntaxError> {
        self.skip_space();
        let at = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token { kind: Kind::End, at });
        };
        let is_fraction = first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit());
        if first.is_ascii_digit() || is_fraction {
            let literal = self.number()?;
            return Ok(Token {
                kind: Kind::Literal(literal),
                at,
            });
        }
        if let Some((prefix, is_raw, is_bytes)) = string_prefix(rest) {
            self.at += prefix;
            let literal = self.string(at, is_raw, is_bytes)?;
            return Ok(Token {
                kind: Kind::Literal(literal),
                at,
            });
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let length = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            self.at += length;
            let kind = match &rest[..length] {
                "true" => Kind::Literal(Literal::Bool(true)),
                "false" => Kind::Literal(Literal::Bool(false)),
                "null" => Kind::Literal(Literal::Null),
                name => Kind::Name(name.to_owned()),
            };
            return Ok(Token { kind, at });
        }
        if first == '`' {
            let inner = &rest[1..];
            let Some(end) = inner.find('`') else {
                return self.fail(at, "a backtick is not closed");
            };
            self.at += end + 2;
            return Ok(Token {
                kind: Kind::Name(inner[..end].to_owned()),
                at,
            });
        }
        for sign in SIGNS.into_iter().chain(["%", "!"]) {
            if rest.starts_with(sign) {
                self.at += sign.len();
                return Ok(Token {
                    kind: Kind::Sign(sign),
                    at,
                });
            }
        }
        self.fail(at, format!("token recognition error at: '{first}'"))
    }

    fn number(&mut self) -> Result<Literal, SyntaxError> {
        let (at, rest) = (self.at, self.rest());
        let hex = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X"));
        if let Some(hex) = hex {
            let length = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            self.at += 2 + length;
            return self.integer(at, &hex[..length], 16);
        }
        let bytes = rest.as_bytes();
        let digits = |from: usize| {
            bytes[from..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count()
        };
        let mut length = digits(0);
        let mut is_double = false;
        if bytes.get(length) == Some(&b'.') && digits(length + 1) > 0 {
            is_double = true;
            length += 1 + digits(length + 1);
        }
        if matches!(bytes.get(length), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
            let power = if length + 1 + sign < bytes.len() {
                digits(length + 1 + sign)
            } else {
                0
            };
            if power > 0 {
                is_double = true;
                length += 1 + sign + power;
            }
        }
        self.at += length;
        if is_double {
            return match rest[..length].parse() {
                Ok(number) => Ok(Literal::Double(number)),
                Err(_) => self.fail(at, "invalid double literal"),
            };
        }
        self.integer(at, &rest[..length], 10)
    }

    fn integer(&mut self, at: usize, digits: &str, radix: u32) -> Result<Literal, SyntaxError> {
        let is_unsigned = self.rest().starts_with(['u', 'U']);
        if is_unsigned {
            self.at += 1;
        }
        match u64::from_str_radix(digits, radix) {
            Ok(number) if is_unsigned => Ok(Literal::Uint(number)),
            Ok(number) if i64::try_from(number).is_ok() => Ok(Literal::Int(number.cast_signed())),
            // Only behind a minus: the parser undoes it.
            Ok(number) if number == 1 << 63 => Ok(Literal::Int(i64::MIN)),
            _ => self.fail(at, "invalid int literal"),
        }
    }

    fn string(&mut self, at: usize, is_raw: bool, is_bytes: bool) -> Result<Literal, SyntaxError> {
        let rest = self.rest();
        let quote = ["\"\"\"", "'''", "\"", "'"]
            .into_iter()
            .find(|quote| rest.starts_with(quote))
            .unwrap_or("\"");
        self.at += quote.len();
        let mut out: Vec<u8> = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                break;
            }
            let Some(c) = rest.chars().next().filter(|c| *c != '\n' || quote.len() == 3) else {
                return self.fail(at, "a text is not closed");
            };
            self.at += c.len_utf8();
            if c == '\\' && !is_raw {
                self.escape(at, is_bytes, &mut out)?;
            } else {
                out.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if is_bytes {
            return Ok(Literal::Bytes(out));
        }
        match String::from_utf8(out) {
            Ok(text) => Ok(Literal::Text(text)),
            Err(_) => self.fail(at, "a text is not UTF-8"),
        }
    }

    fn escape(&mut self, at: usize, is_bytes: bool, out: &mut Vec<u8>) -> Result<(), SyntaxError> {
        let rest = self.rest();
        let Some(c) = rest.chars().next() else {
            return self.fail(at, "a text is not closed");
        };
        self.at += c.len_utf8();
        let simple = match c {
            'n' => b'\n',
            't' => b'\t',
            'r' => b'\r',
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => u8::try_from(c).unwrap_or(b'?'),
            'x' | 'X' | 'u' | 'U' | '0'..='3' => {
                let (skip, length, radix) = match c {
                    'x' | 'X' => (1, 2, 16),
                    'u' => (1, 4, 16),
                    'U' => (1, 8, 16),
                    _ => (0, 3, 8),
                };
                let code = rest
                    .get(skip..skip + length)
                    .and_then(|digits| u32::from_str_radix(digits, radix).ok());
                let Some(code) = code else {
                    return self.fail(at, "invalid escape sequence");
                };
                self.at += length - (1 - skip);
                match (u8::try_from(code), char::from_u32(code)) {
                    (Ok(byte), _) if is_bytes => out.push(byte),
                    (_, Some(c)) => out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    _ => return self.fail(at, "invalid escape sequence"),
                }
                return Ok(());
            }
            _ => return self.fail(at, format!("invalid escape sequence '\\{c}'")),
        };
        out.push(simple);
        Ok(())
    }
}

/// Length of the letters before a quote, and whether they mean raw and bytes.
fn string_prefix(text: &str) -> Option<(usize, bool, bool)> {
    let letters = text.bytes().take(2).take_while(u8::is_ascii_alphabetic).count();
    let prefix = text[..letters].to_ascii_lowercase();
    let is_known = matches!(prefix.as_str(), "" | "r" | "b" | "br" | "rb");
    let is_quote = text[letters..].starts_with(['"', '\'']);
    (is_known && is_quote).then(|| (letters, prefix.contains('r'), prefix.contains('b')))
}
