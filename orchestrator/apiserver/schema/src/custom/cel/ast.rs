//! Expressions of CEL, as they are written.

/// An expression and where in its text it begins.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(super) node: Node,
    /// Byte offset of the operator, field or name that an error would point at.
    pub(super) at: usize,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Literal(Literal),
    Name(String),
    /// `operand.field`; `optional`: `operand.?field`.
    Select {
        operand: Box<Expr>,
        field: String,
        optional: bool,
    },
    /// `has(operand.field)`.
    Has {
        operand: Box<Expr>,
        field: String,
    },
    /// `operand[index]`; `optional`: `operand[?index]`.
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// `target.function(arguments)` or `function(arguments)`.
    Call {
        target: Option<Box<Expr>>,
        function: String,
        arguments: Vec<Expr>,
    },
    /// Elements with a mark for those that are optional.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// An object of a named type: its fields, and whether each is optional.
    Message {
        name: String,
        fields: Vec<(String, Expr, bool)>,
    },
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary {
        operator: Operator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Conditional {
        condition: Box<Expr>,
        yes: Box<Expr>,
        no: Box<Expr>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Expr {
    /// Whether a name stands anywhere in the expression.
    pub(crate) fn mentions(&self, name: &str) -> bool {
        match &self.node {
            Node::Name(found) => found == name,
            Node::Literal(_) => false,
            Node::Select { operand, .. } | Node::Has { operand, .. } => operand.mentions(name),
            Node::Index { operand, index, .. } => operand.mentions(name) || index.mentions(name),
            Node::Call {
                target, arguments, ..
            } => {
                target.iter().any(|one| one.mentions(name)) || arguments.iter().any(|one| one.mentions(name))
            }
            Node::List(items) => items.iter().any(|(one, _)| one.mentions(name)),
            Node::Map(entries) => entries
                .iter()
                .any(|(key, value, _)| key.mentions(name) || value.mentions(name)),
            Node::Message { fields, .. } => fields.iter().any(|(_, value, _)| value.mentions(name)),
            Node::Not(inner) | Node::Negate(inner) => inner.mentions(name),
            Node::Binary { left, right, .. } => left.mentions(name) || right.mentions(name),
            Node::Conditional { condition, yes, no } => {
                condition.mentions(name) || yes.mentions(name) || no.mentions(name)
            }
        }
    }
}
