//! Which schemas are not taken although they are valid.

use std::collections::HashMap;

use serde_json::Value;

use super::super::error::Error;
use super::document::{Document, Node};

/// How deep schemas may be nested, over references too: a body is checked by a
/// function that calls itself for each, on a stack of 2 MiB.
const MAX_DEPTH: usize = 32;

/// How many schemas there may be with every reference written out, which is how
/// many a value may meet: two references to the same part, thirty times over, are
/// 2^30.
const MAX_APPLIED: usize = 5_000;

/// Patterns, at most: each may take 256 KiB.
const MAX_PATTERNS: usize = 100;

/// Checks a schema against what could take a gateway down.
pub(super) fn check(document: &Document) -> Result<(), Error> {
    let mut walk = Walk::default();
    let root = document.node();
    let cost = walk.visit(&root)?;
    if cost.depth > MAX_DEPTH {
        return refuse(
            &root,
            &format!("is nested more than {MAX_DEPTH} deep, references included: flatten it"),
        );
    }
    if cost.applied > MAX_APPLIED {
        return refuse(
            &root,
            &format!(
                "comes to more than {MAX_APPLIED} schemas with its references written out: \
                 refer to less, or check less"
            ),
        );
    }
    if walk.patterns > MAX_PATTERNS {
        return refuse(
            &root,
            &format!("has more than {MAX_PATTERNS} patterns: join some"),
        );
    }
    Ok(())
}

fn refuse<T>(node: &Node<'_>, detail: &str) -> Result<T, Error> {
    Err(Error::invalid(node.at.clone(), detail))
}

/// What a schema takes to apply.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    depth: usize,
    applied: usize,
}

#[derive(Default)]
struct Walk {
    /// By address; `None` while it is being looked at.
    seen: HashMap<*const Value, Option<Cost>>,
    patterns: usize,
    /// How deep this walk is.
    depth: usize,
}

/// References that depend on who refers.
const DYNAMIC: [&str; 4] = [
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
];

impl Walk {
    fn visit(&mut self, node: &Node<'_>) -> Result<Cost, Error> {
        let address = std::ptr::from_ref(node.value);
        match self.seen.get(&address) {
            Some(Some(cost)) => return Ok(*cost),
            Some(None) => {
                return refuse(
                    node,
                    "refers to itself: write its levels out as far as messages need them",
                );
            }
            None => {}
        }
        // It calls itself too.
        if self.depth > 4 * MAX_DEPTH {
            return refuse(node, "is nested too deep: flatten it");
        }
        self.seen.insert(address, None);
        self.depth += 1;
        self.look(node)?;
        let mut cost = Cost {
            depth: 0,
            applied: 1,
        };
        for part in node.children().into_iter().chain(node.target()?) {
            let one = self.visit(&part)?;
            cost.depth = cost.depth.max(one.depth);
            cost.applied = cost.applied.saturating_add(one.applied);
        }
        cost.depth += 1;
        for definition in node.definitions() {
            self.visit(&definition)?;
        }
        self.depth -= 1;
        self.seen.insert(address, Some(cost));
        Ok(cost)
    }

    fn look(&mut self, node: &Node<'_>) -> Result<(), Error> {
        let Some(object) = node.object() else {
            return Ok(());
        };
        for keyword in DYNAMIC {
            if let Some(value) = object.get(keyword) {
                let node = node.below(keyword, value);
                return refuse(&node, "is not taken: use $ref with a JSON pointer");
            }
        }
        if !node.at.is_empty() {
            for keyword in ["$id", "id", "$schema"] {
                if let Some(value @ Value::String(_)) = object.get(keyword) {
                    let node = node.below(keyword, value);
                    return refuse(&node, "is taken at the root of the schema only");
                }
            }
        }
        self.patterns += usize::from(object.contains_key("pattern"));
        self.patterns += node.named("patternProperties").len();
        Ok(())
    }
}
