//! A schema as a document: its draft, which keywords that knows, and where its
//! references lead.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::super::error::{Error, quoted};

/// A version of JSON Schema, in order of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Draft {
    Four,
    Six,
    Seven,
    Y2019,
    Y2020,
}

/// How drafts are named in `$schema`, without `http:` or `https:` and a `#` at the
/// end.
const DRAFTS: [(Draft, &str); 5] = [
    (Draft::Y2020, "//json-schema.org/draft/2020-12/schema"),
    (Draft::Y2019, "//json-schema.org/draft/2019-09/schema"),
    (Draft::Seven, "//json-schema.org/draft-07/schema"),
    (Draft::Six, "//json-schema.org/draft-06/schema"),
    (Draft::Four, "//json-schema.org/draft-04/schema"),
];

impl Draft {
    fn named(uri: &str) -> Option<Self> {
        let uri = uri.strip_suffix('#').unwrap_or(uri);
        let rest = uri
            .strip_prefix("https:")
            .or_else(|| uri.strip_prefix("http:"))?;
        DRAFTS
            .iter()
            .find(|(_, name)| *name == rest)
            .map(|(draft, _)| *draft)
    }

    pub(super) fn of_crate(self) -> jsonschema::Draft {
        match self {
            Self::Four => jsonschema::Draft::Draft4,
            Self::Six => jsonschema::Draft::Draft6,
            Self::Seven => jsonschema::Draft::Draft7,
            Self::Y2019 => jsonschema::Draft::Draft201909,
            Self::Y2020 => jsonschema::Draft::Draft202012,
        }
    }

    /// Whether a keyword means anything.
    fn knows(self, keyword: &str) -> bool {
        match keyword {
            "const" | "contains" | "propertyNames" => self >= Self::Six,
            "if" | "then" | "else" => self >= Self::Seven,
            "dependentRequired"
            | "dependentSchemas"
            | "minContains"
            | "maxContains"
            | "unevaluatedItems"
            | "unevaluatedProperties" => self >= Self::Y2019,
            "prefixItems" => self >= Self::Y2020,
            "additionalItems" => self <= Self::Y2019,
            _ => true,
        }
    }
}

/// A schema and its draft.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Value,
    pub(super) draft: Draft,
}

/// A place in a schema.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    pub(super) document: &'a Document,
    pub(super) value: &'a Value,
    /// Where it stands, as a JSON pointer.
    pub(super) at: String,
}

impl Document {
    pub(super) fn new(schema: &Value) -> Result<Self, Error> {
        let draft = match schema.get("$schema") {
            None => Draft::Y2020,
            Some(uri) => uri.as_str().and_then(Draft::named).ok_or_else(|| {
                let known: Vec<String> = DRAFTS
                    .iter()
                    .map(|(draft, name)| match draft {
                        Draft::Y2020 | Draft::Y2019 => format!("https:{name}"),
                        _ => format!("http:{name}#"),
                    })
                    .collect();
                Error::invalid("/$schema", format!("must be one of {}", known.join(", ")))
            })?,
        };
        Ok(Self {
            root: schema.clone(),
            draft,
        })
    }

    pub(super) fn node(&self) -> Node<'_> {
        Node {
            document: self,
            value: &self.root,
            at: String::new(),
        }
    }
}

/// One segment of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl<'a> Node<'a> {
    /// Its keywords; `None` for `true` and `false`.
    pub(super) fn object(&self) -> Option<&'a Map<String, Value>> {
        self.value.as_object()
    }

    /// What a keyword says, if the draft knows it and it counts here.
    pub(super) fn get(&self, keyword: &str) -> Option<&'a Value> {
        let object = self.object()?;
        let draft = self.document.draft;
        // Up to draft 7 a reference takes the place of all else.
        if draft <= Draft::Seven && object.contains_key("$ref") && keyword != "$ref" {
            return None;
        }
        object.get(keyword).filter(|_| draft.knows(keyword))
    }

    /// What stands below.
    pub(super) fn below(&self, segment: &str, value: &'a Value) -> Self {
        Self {
            document: self.document,
            value,
            at: format!("{}/{}", self.at, escaped(segment)),
        }
    }

    /// The schema that a keyword holds.
    pub(super) fn child(&self, keyword: &str) -> Option<Self> {
        Some(self.below(keyword, self.get(keyword)?))
    }

    /// The schemas that a keyword lists.
    pub(super) fn list(&self, keyword: &str) -> Option<Vec<Self>> {
        let list = self.get(keyword)?.as_array()?;
        let node = self.child(keyword)?;
        Some(
            list.iter()
                .enumerate()
                .map(|(at, value)| node.below(&at.to_string(), value))
                .collect(),
        )
    }

    /// The schemas that a keyword holds by name.
    pub(super) fn named(&self, keyword: &str) -> Vec<(&'a str, Self)> {
        let (Some(map), Some(node)) = (
            self.get(keyword).and_then(Value::as_object),
            self.child(keyword),
        ) else {
            return Vec::new();
        };
        map.iter()
            .map(|(name, value)| (name.as_str(), node.below(name, value)))
            .collect()
    }

    /// Where its `$ref` leads, if it has one.
    pub(super) fn target(&self) -> Result<Option<Self>, Error> {
        let Some(reference) = self.get("$ref") else {
            return Ok(None);
        };
        let refuse = |detail: String| Err(Error::invalid(format!("{}/$ref", self.at), detail));
        let Some(pointer) = reference.as_str().and_then(|text| text.strip_prefix('#')) else {
            return refuse(
                "must lead into the schema itself, such as #/$defs/amount: nothing is fetched"
                    .to_owned(),
            );
        };
        let decoded = percent_decode_str(pointer).decode_utf8_lossy();
        if !decoded.is_empty() && !decoded.starts_with('/') {
            return refuse("must be a JSON pointer, such as #/$defs/amount".to_owned());
        }
        match self.document.root.pointer(&decoded) {
            Some(value) => Ok(Some(Node {
                document: self.document,
                value,
                at: decoded.into_owned(),
            })),
            None => refuse(format!("leads nowhere: {}", quoted(&decoded))),
        }
    }

    /// Every schema below that is applied, but for what a `$ref` leads to.
    pub(super) fn children(&self) -> Vec<Self> {
        let mut found = Vec::new();
        for keyword in [
            "additionalItems",
            "additionalProperties",
            "contains",
            "contentSchema",
            "else",
            "if",
            "items",
            "not",
            "propertyNames",
            "then",
            "unevaluatedItems",
            "unevaluatedProperties",
        ] {
            found.extend(self.child(keyword).filter(|child| !child.value.is_array()));
        }
        for keyword in ["allOf", "anyOf", "items", "oneOf", "prefixItems"] {
            found.extend(self.list(keyword).unwrap_or_default());
        }
        for keyword in [
            "dependencies",
            "dependentSchemas",
            "patternProperties",
            "properties",
        ] {
            let named = self.named(keyword).into_iter().map(|(_, node)| node);
            // In draft 7 a dependency may be a list of names.
            found.extend(named.filter(|node| !node.value.is_array()));
        }
        found
    }

    /// The schemas that are there to be referred to.
    pub(super) fn definitions(&self) -> Vec<Self> {
        let named = |keyword| self.named(keyword).into_iter().map(|(_, node)| node);
        named("$defs").chain(named("definitions")).collect()
    }
}
