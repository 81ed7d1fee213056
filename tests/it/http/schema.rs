//! Checks answers against the schemas that the document has for them: as much of
//! JSON Schema as the document uses.

use serde_json::Value;

/// Follows `$ref`.
pub(super) fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => schema,
    }
}

/// Whether a value is of a schema; where it is not, if not.
pub(super) fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = resolve(document, schema);
    let fit = |schema: &Value, value: &Value| fits(document, schema, value);
    let within = |name: &str, result: Result<(), String>| result.map_err(|e| format!("/{name}{e}"));
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let is_of = |kind: &Value| match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    };
    if !types.is_empty() && !types.iter().any(is_of) {
        return Err(format!(": {value} is not of {types:?}"));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return Err(format!(": {value} is not of {values:?}"));
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        fit(part, value)?;
    }
    if let Some(parts) = schema["oneOf"].as_array()
        && parts.iter().filter(|part| fit(part, value).is_ok()).count() != 1
    {
        return Err(format!(": {value} is not one of {parts:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        within("-", fit(schema.get("items").unwrap_or(&Value::Null), item))?;
    }
    let Some(fields) = value.as_object() else {
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Err(format!(": {name} is missing"));
        }
    }
    let known = schema["properties"].as_object();
    for (name, field) in fields {
        match known.and_then(|known| known.get(name)) {
            Some(property) => within(name, fit(property, field))?,
            None => match &schema["additionalProperties"] {
                Value::Object(_) => within(name, fit(&schema["additionalProperties"], field))?,
                // Undocumented, though the schema may not forbid it.
                _ if known.is_some() => return Err(format!("/{name}: is not documented")),
                _ => {}
            },
        }
    }
    Ok(())
}
