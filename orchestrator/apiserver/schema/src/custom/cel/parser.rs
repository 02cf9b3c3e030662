//! Reads CEL by operator precedence. Nesting and size are limited, so no text exhausts stack or memory.

use super::ast::{Expr, Literal, Node, Operator};
use super::lexer::{Kind, SyntaxError, Token, tokens};

/// Longest expression in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Deepest nesting.
const DEPTH_MAX: usize = 48;

/// Parses an expression.
pub(crate) fn parse(text: &str) -> Result<Expr, SyntaxError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("expression is longer than {TEXT_BYTES_MAX} bytes");
        return Err(SyntaxError { at: 0, message });
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
    };
    let found = parser.conditional()?;
    match parser.peek() {
        Kind::End => Ok(found),
        _ => parser.unexpected(),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

type Parsed = Result<Expr, SyntaxError>;

/// Operators from the loosest to the tightest.
const LEVELS: [&[(&str, Operator)]; 5] = [
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessEqual),
        (">=", Operator::GreaterEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
        ("in", Operator::In),
    ],
    &[("+", Operator::Add), ("-", Operator::Subtract)],
    &[
        ("*", Operator::Multiply),
        ("/", Operator::Divide),
        ("%", Operator::Remainder),
    ],
];

impl Parser {
    fn peek(&self) -> &Kind {
        &self.tokens[self.next].kind
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Kind::Sign(found) if *found == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), SyntaxError> {
        if self.take(sign) {
            Ok(())
        } else {
            self.unexpected()
        }
    }

    fn unexpected<T>(&self) -> Result<T, SyntaxError> {
        let found = match self.peek() {
            Kind::Name(name) => format!("'{name}'"),
            Kind::Sign(sign) => format!("'{sign}'"),
            Kind::Literal(_) => "literal".to_owned(),
            Kind::End => "<EOF>".to_owned(),
        };
        Err(SyntaxError {
            at: self.at(),
            message: format!("Syntax error: mismatched input {found}"),
        })
    }

    fn conditional(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let message = format!("expression recursion limit exceeded: {DEPTH_MAX}");
            return Err(SyntaxError {
                at: self.at(),
                message,
            });
        }
        let mut found = self.binary(0)?;
        let at = self.at();
        if self.take("?") {
            let yes = self.binary(0)?;
            self.expect(":")?;
            let no = self.conditional()?;
            let node = Node::Conditional {
                condition: Box::new(found),
                yes: Box::new(yes),
                no: Box::new(no),
            };
            found = Expr { node, at };
        }
        self.depth -= 1;
        Ok(found)
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        let mut chain = 0;
        loop {
            let at = self.at();
            let found = operators.iter().find(|(sign, _)| match self.peek() {
                Kind::Sign(found) => found == sign,
                Kind::Name(name) => name == sign && *sign == "in",
                _ => false,
            });
            let Some((_, operator)) = found else {
                return Ok(left);
            };
            chain += 1;
            if chain > 512 {
                return Err(SyntaxError {
                    at,
                    message: "expression has too many operators in a row".to_owned(),
                });
            }
            self.next += 1;
            let right = self.binary(level + 1)?;
            let node = Node::Binary {
                operator: *operator,
                left: Box::new(left),
                right: Box::new(right),
            };
            left = Expr { node, at };
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        let sign = if self.is("!") { "!" } else { "-" };
        let mut count = 0;
        while self.take(sign) {
            count += 1;
        }
        let mut inner = self.member()?;
        if count % 2 == 0 {
            return Ok(inner);
        }
        if sign == "!" {
            return Ok(Expr {
                node: Node::Not(Box::new(inner)),
                at,
            });
        }
        match &mut inner.node {
            Node::Literal(Literal::Int(number)) => *number = number.wrapping_neg(),
            Node::Literal(Literal::Double(number)) => *number = -*number,
            _ => {
                return Ok(Expr {
                    node: Node::Negate(Box::new(inner)),
                    at,
                });
            }
        }
        Ok(inner)
    }

    fn member(&mut self) -> Parsed {
        let mut found = self.primary()?;
        let mut chain = 0;
        loop {
            chain += 1;
            if chain > 256 {
                return Err(SyntaxError {
                    at: self.at(),
                    message: "expression selects too deep".to_owned(),
                });
            }
            let at = self.at();
            if self.take(".") {
                let field = self.name()?;
                if self.take("(") {
                    let arguments = self.arguments(")")?;
                    let node = Node::Call {
                        target: Some(Box::new(found)),
                        function: field,
                        arguments,
                    };
                    found = Expr { node, at };
                } else {
                    found = Expr {
                        node: Node::Select {
                            operand: Box::new(found),
                            field,
                            optional: false,
                        },
                        at,
                    };
                }
            } else if self.take(".?") {
                let field = self.name()?;
                found = Expr {
                    node: Node::Select {
                        operand: Box::new(found),
                        field,
                        optional: true,
                    },
                    at,
                };
            } else if (self.is("{") || self.is("{?")) && qualified(&found).is_some() {
                let name = qualified(&found).unwrap_or_default();
                found = self.message(name, at)?;
            } else if self.is("[") || self.is("[?") {
                let optional = self.is("[?");
                self.next += 1;
                let index = Box::new(self.conditional()?);
                self.expect("]")?;
                found = Expr {
                    node: Node::Index {
                        operand: Box::new(found),
                        index,
                        optional,
                    },
                    at,
                };
            } else {
                return Ok(found);
            }
        }
    }

    /// The fields of an object of a named type.
    fn message(&mut self, name: String, at: usize) -> Parsed {
        let mut optional = self.is("{?");
        self.next += 1;
        let mut fields = Vec::new();
        while !self.take("}") {
            optional |= self.take("?");
            let field = self.name()?;
            self.expect(":")?;
            fields.push((field, self.conditional()?, optional));
            optional = false;
            if !self.take(",") && !self.is("}") {
                return self.unexpected();
            }
        }
        Ok(Expr {
            node: Node::Message { name, fields },
            at,
        })
    }

    fn name(&mut self) -> Result<String, SyntaxError> {
        let Kind::Name(name) = self.peek() else {
            return self.unexpected();
        };
        let name = name.clone();
        self.next += 1;
        Ok(name)
    }

    fn arguments(&mut self, close: &str) -> Result<Vec<Expr>, SyntaxError> {
        let mut found = Vec::new();
        while !self.take(close) {
            found.push(self.conditional()?);
            if !self.take(",") && !self.is(close) {
                return self.unexpected();
            }
        }
        Ok(found)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        // A leading dot names the root scope, which is the only one here.
        self.take(".");
        match self.peek().clone() {
            Kind::Literal(literal) => {
                self.next += 1;
                Ok(Expr {
                    node: Node::Literal(literal),
                    at,
                })
            }
            Kind::Name(name) => {
                self.next += 1;
                if !self.take("(") {
                    return Ok(Expr {
                        node: Node::Name(name),
                        at,
                    });
                }
                let mut arguments = self.arguments(")")?;
                if name == "has" && arguments.len() == 1 {
                    let argument = arguments.remove(0);
                    let Node::Select {
                        operand,
                        field,
                        optional: false,
                    } = argument.node
                    else {
                        return Err(SyntaxError {
                            at,
                            message: "invalid argument to has() macro".to_owned(),
                        });
                    };
                    return Ok(Expr {
                        node: Node::Has { operand, field },
                        at,
                    });
                }
                Ok(Expr {
                    node: Node::Call {
                        target: None,
                        function: name,
                        arguments,
                    },
                    at,
                })
            }
            Kind::Sign("(") => {
                self.next += 1;
                let inner = self.conditional()?;
                self.expect(")")?;
                Ok(inner)
            }
            Kind::Sign("[" | "[?") => self.list(at),
            Kind::Sign("{" | "{?") => self.map(at),
            _ => self.unexpected(),
        }
    }

    fn list(&mut self, at: usize) -> Parsed {
        let mut optional = self.is("[?");
        self.next += 1;
        let mut items = Vec::new();
        while !self.take("]") {
            optional |= self.take("?");
            items.push((self.conditional()?, optional));
            optional = false;
            if !self.take(",") && !self.is("]") {
                return self.unexpected();
            }
        }
        Ok(Expr {
            node: Node::List(items),
            at,
        })
    }

    fn map(&mut self, at: usize) -> Parsed {
        let mut optional = self.is("{?");
        self.next += 1;
        let mut entries = Vec::new();
        while !self.take("}") {
            optional |= self.take("?");
            let key = self.conditional()?;
            self.expect(":")?;
            entries.push((key, self.conditional()?, optional));
            optional = false;
            if !self.take(",") && !self.is("}") {
                return self.unexpected();
            }
        }
        Ok(Expr {
            node: Node::Map(entries),
            at,
        })
    }
}

/// The names that stand in an expression made of nothing else, with dots between them.
fn qualified(expr: &Expr) -> Option<String> {
    match &expr.node {
        Node::Name(name) => Some(name.clone()),
        Node::Select {
            operand,
            field,
            optional: false,
        } => Some(format!("{}.{field}", qualified(operand)?)),
        _ => None,
    }
}
