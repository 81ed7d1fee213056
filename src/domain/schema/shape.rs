//! What a schema lets in, as far as it can be told from outside: an upper bound.

use serde_json::Value;

use super::document::Node;

/// A set of types, a bit each. Numbers are two: whole ones, and those that are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Types(u8);

impl Types {
    pub(super) const ALL: Self = Self(0x7f);
    pub(super) const OBJECT: Self = Self(4);
    pub(super) const ARRAY: Self = Self(8);
    pub(super) const STRING: Self = Self(16);
    const INTEGER: Self = Self(32);
    const FRACTION: Self = Self(64);
    pub(super) const NUMBER: Self = Self(96);
    /// Each that `type` can name by itself.
    const NAMED: [(&'static str, Self); 7] = [
        ("null", Self(1)),
        ("boolean", Self(2)),
        ("object", Self::OBJECT),
        ("array", Self::ARRAY),
        ("string", Self::STRING),
        ("integer", Self::INTEGER),
        ("number", Self::NUMBER),
    ];

    /// By its name in a schema.
    fn named(name: &str) -> Self {
        let found = Self::NAMED.iter().find(|(known, _)| *known == name);
        found.map_or(Self(0), |(_, types)| *types)
    }

    fn of_value(value: &Value) -> Self {
        match value {
            Value::Null => Self(1),
            Value::Bool(_) => Self(2),
            Value::Object(_) => Self::OBJECT,
            Value::Array(_) => Self::ARRAY,
            Value::String(_) => Self::STRING,
            Value::Number(number) if number.is_f64() => {
                // 1.0 is whole by some drafts and not by others.
                match number.as_f64().map(f64::fract) {
                    Some(fraction) if fraction != 0.0 => Self::FRACTION,
                    _ => Self::NUMBER,
                }
            }
            Value::Number(_) => Self::INTEGER,
        }
    }

    /// What `type` says.
    pub(super) fn said(value: &Value) -> Self {
        match value {
            Value::String(name) => Self::named(name),
            Value::Array(names) => names
                .iter()
                .filter_map(Value::as_str)
                .fold(Self(0), |all, name| Self(all.0 | Self::named(name).0)),
            _ => Self::ALL,
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn meets(self, other: Self) -> bool {
        !self.and(other).is_empty()
    }

    /// One by one.
    pub(super) fn each(self) -> Vec<Self> {
        let kinds = Self::NAMED
            .iter()
            .filter(|(name, _)| *name != "integer")
            .map(|(_, types)| self.and(*types));
        kinds.filter(|types| !types.is_empty()).collect()
    }

    /// What they are called.
    pub(super) fn names(self) -> String {
        let mut names: Vec<&str> = Self::NAMED
            .iter()
            .filter(|(_, types)| self.and(*types) == *types)
            .map(|(name, _)| *name)
            .collect();
        if names.contains(&"number") {
            names.retain(|name| *name != "integer");
        } else if self.meets(Self::FRACTION) {
            names.push("number that is not whole");
        }
        names.join(", ")
    }
}

/// What a version lets in at some place: what meets all its parts, and one of each
/// of its unions.
#[derive(Debug, Clone)]
pub(super) struct Old<'a> {
    pub(super) parts: Vec<Node<'a>>,
    pub(super) unions: Vec<Vec<Node<'a>>>,
    types: Types,
    nothing: bool,
}

impl<'a> Old<'a> {
    /// Anything.
    pub(super) fn any() -> Self {
        Self {
            parts: Vec::new(),
            unions: Vec::new(),
            types: Types::ALL,
            nothing: false,
        }
    }

    pub(super) fn of(node: Node<'a>) -> Self {
        Self::any().with(node)
    }

    pub(super) fn of_all(nodes: impl IntoIterator<Item = Node<'a>>) -> Self {
        nodes.into_iter().fold(Self::any(), Self::with)
    }

    /// Of that, only these types.
    pub(super) fn only(mut self, types: Types) -> Self {
        self.types = self.types.and(types);
        self
    }

    /// What is in one of the union too.
    pub(super) fn with_union(mut self, union: Vec<Node<'a>>) -> Self {
        self.unions.push(union);
        self
    }

    /// What the node lets in too.
    pub(super) fn with(mut self, node: Node<'a>) -> Self {
        match node.value {
            Value::Bool(true) => return self,
            Value::Bool(false) => {
                self.nothing = true;
                return self;
            }
            _ => {}
        }
        if let Some(types) = node.get("type") {
            self.types = self.types.and(Types::said(types));
        }
        if let Some(values) = listed(&node) {
            let types = values.iter().fold(Types(0), |all, value| {
                Types(all.0 | Types::of_value(value).0)
            });
            self.types = self.types.and(types);
        }
        for keyword in ["anyOf", "oneOf"] {
            self.unions.extend(node.list(keyword));
        }
        let more = node.list("allOf").unwrap_or_default();
        let target = node.target().ok().flatten();
        self.parts.push(node);
        more.into_iter().chain(target).fold(self, Self::with)
    }

    pub(super) fn types(&self) -> Types {
        self.types
    }

    /// Whether nothing at all is let in, for sure.
    pub(super) fn is_nothing(&self) -> bool {
        self.nothing || self.types.is_empty()
    }

    /// The values that it may be, if they are listed.
    pub(super) fn values(&self) -> Option<Vec<&'a Value>> {
        self.parts.iter().find_map(listed)
    }

    /// Names that objects have for sure.
    pub(super) fn requires(&self, name: &str) -> bool {
        self.parts.iter().any(|part| required(part).contains(&name))
    }

    /// The smallest that one of its parts sets.
    pub(super) fn at_most(&self, keyword: &str) -> Option<u64> {
        let sizes = self.parts.iter();
        sizes
            .filter_map(|part| super::numbers::size(part, keyword))
            .min()
    }

    /// The largest that one of its parts sets.
    pub(super) fn at_least(&self, keyword: &str) -> u64 {
        let sizes = self.parts.iter();
        let largest = sizes
            .filter_map(|part| super::numbers::size(part, keyword))
            .max();
        largest.unwrap_or(0)
    }
}

/// The values that a schema lists.
fn listed<'a>(node: &Node<'a>) -> Option<Vec<&'a Value>> {
    if let Some(value) = node.get("const") {
        return Some(vec![value]);
    }
    Some(node.get("enum")?.as_array()?.iter().collect())
}

/// The names that a schema requires.
pub(super) fn required<'a>(node: &Node<'a>) -> Vec<&'a str> {
    let names = node.get("required").and_then(Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Whether no value can be in both: they differ in type, or in a text that a
/// property has to be.
pub(super) fn are_disjoint(a: &Node<'_>, b: &Node<'_>) -> bool {
    let (a, b) = (Old::of(a.clone()), Old::of(b.clone()));
    if a.is_nothing() || b.is_nothing() || !a.types().meets(b.types()) {
        return true;
    }
    if !a.types().and(b.types()).without(Types::OBJECT).is_empty() {
        return false;
    }
    let texts = |old: &Old<'_>, name: &str| -> Option<Vec<String>> {
        let parts = old.parts.iter();
        let properties = parts.flat_map(|part| part.named("properties"));
        let values = properties
            .filter(|(known, _)| *known == name)
            .find_map(|(_, node)| listed(&node))?;
        values
            .into_iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect()
    };
    let names = a.parts.iter().flat_map(required);
    names
        .filter(|name| b.requires(name))
        .any(|name| match (texts(&a, name), texts(&b, name)) {
            (Some(a), Some(b)) => a.iter().all(|text| !b.contains(text)),
            _ => false,
        })
}
