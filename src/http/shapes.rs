//! The shapes of requests that the derived schemas cannot say: which fields
//! exclude each other, what a merge patch may hold, the grammar of filters. What
//! is written here in JSON Schema, `domain` and the extractors enforce; the
//! contract is fuzzed to see that they agree (`tests/contract`).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::{AdditionalProperties, SchemaType};
use utoipa::openapi::{
    Array, Components, Content, Object, OneOfBuilder, OpenApi, Ref, RefOr, Required, Schema, Type,
};

use super::{reply, transact_input};

/// A name of a queue, topic or subscription, with the rule against `..`.
pub(super) const NAME: &str = r"^[A-Za-z0-9_](\.?[A-Za-z0-9_-])*\.?$";
/// A header's name: RFC 9110's token characters.
pub(super) const TOKEN: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$";
/// Text without control characters.
pub(super) const PLAIN: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";
/// What an optional request body says of itself.
const OPTIONAL: &str = "May be left out";

pub(super) type Schemas = BTreeMap<String, RefOr<Schema>>;

/// A schema as JSON Schema writes it.
pub(super) fn schema(json: Value) -> RefOr<Schema> {
    serde_json::from_value(json).expect("it is written below, and a test reads it")
}

pub(super) fn object(json: Value) -> Object {
    match schema(json) {
        RefOr::T(Schema::Object(object)) => object,
        _ => Object::new(),
    }
}

fn array(json: Value) -> Array {
    match schema(json) {
        RefOr::T(Schema::Array(array)) => array,
        _ => Array::default(),
    }
}

pub(super) fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

/// Headers of a message.
pub(super) fn message_headers() -> Object {
    object(json!({
        "type": ["object", "null"],
        "description": "At most 64, names and values strings: a name has 1 to 128 of RFC 9110's \
            token characters, a value at most 4096 bytes without control characters.",
        "maxProperties": 64,
        "propertyNames": {"type": "string", "pattern": TOKEN},
        "additionalProperties": {"type": "string", "maxLength": 4096, "pattern": PLAIN},
    }))
}

/// Keys of messages.
pub(super) fn keys() -> Array {
    array(json!({
        "type": "array",
        "description": "1 to 1000 keys.",
        "minItems": 1,
        "maxItems": 1000,
        "items": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": PLAIN},
    }))
}

/// A JSON Schema: an object of keywords, or true or false.
pub(super) fn json_schema() -> Object {
    object(json!({
        "type": ["object", "boolean"],
        "description": "A JSON Schema, at most 64 KiB: draft 2020-12, or what its `$schema` \
            names (2019-09, 7, 6, 4).",
    }))
}

/// What an API key may do.
pub(super) fn scopes() -> Array {
    const SCOPE: &str =
        r"^((publish|consume|manage):([A-Za-z0-9_](\.?[A-Za-z0-9_-])*\.?\*?|\*)|monitor|admin)$";
    let scopes = schema(json!({
        "type": "array", "minItems": 1, "maxItems": 100,
        "items": {"type": "string", "pattern": SCOPE, "maxLength": 87},
        "description": "What it may do, 1 to 100: `publish:`, `consume:` or `manage:` and a name \
            or the beginning of names and a `*` (`publish:orders.*`); `monitor`; `admin`.",
    }));
    match scopes {
        RefOr::T(Schema::Array(scopes)) => scopes,
        _ => Array::default(),
    }
}

/// Completes the document.
pub(super) fn complete(document: &mut OpenApi) {
    if let Some(components) = &mut document.components {
        messages(&mut components.schemas);
        reply::describe(&mut components.schemas);
        transact_input::describe(&mut components.schemas);
        redrive(&mut components.schemas);
        filters(&mut components.schemas);
    }
    for item in document.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            parameters(operation);
            bodies(operation);
        }
        if let Some(operation) = &mut item.patch {
            parameters(operation);
            merge_patch(operation, document.components.as_mut());
        }
    }
}

/// Names have a shape, and no parameter is ever null.
fn parameters(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else {
            continue;
        };
        let is_name = matches!(
            parameter.name.as_str(),
            "queue" | "topic" | "subscription" | "schedule"
        );
        if parameter.name == "key" && parameter.parameter_in == ParameterIn::Path {
            parameter.schema = Some(schema(
                json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": PLAIN}),
            ));
        } else if is_name && parameter.parameter_in == ParameterIn::Path {
            parameter.schema = Some(schema(
                json!({"type": "string", "pattern": NAME, "maxLength": 80}),
            ));
        } else if let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
            && let SchemaType::Array(types) = &mut object.schema_type
        {
            types.retain(|kind| *kind != Type::Null);
            if let [one] = &types[..] {
                object.schema_type = one.clone().into();
            }
        }
    }
}

fn bodies(operation: &mut Operation) {
    let Some(RefOr::T(body)) = &mut operation.request_body else {
        return;
    };
    if body.description.as_deref() == Some(OPTIONAL) {
        body.required = Some(Required::False);
    }
    let of_messages = match operation.operation_id.as_deref() {
        Some("publish") => "Publish",
        Some("request") => "AnyRequest",
        Some("publish_topic") => "PublishRouted",
        Some("explain") => "Explain",
        _ => return,
    };
    for (content_type, content) in &mut body.content {
        let RefOr::T(content) = content else {
            continue;
        };
        content.schema = Some(if content_type == "application/json" {
            reference(of_messages)
        } else {
            schema(json!({"type": "string", "format": "binary"}))
        });
    }
}

/// What a publish takes: one message or a batch, each with a JSON value or with
/// bytes, and only to a topic with what is routed by.
fn messages(schemas: &mut Schemas) {
    let Some(RefOr::T(Schema::Object(derived))) = schemas.get("Message").cloned() else {
        return;
    };
    let mut add = |name: &str, body: &str, without: &[&str]| {
        let mut message = derived.clone();
        message
            .properties
            .retain(|field, _| !without.contains(&field.as_str()) && field.as_str() != "messages");
        message.required = vec![body.to_owned()];
        if let Some(RefOr::T(Schema::Object(field))) = message.properties.get_mut(body)
            && let SchemaType::Array(_) = field.schema_type
        {
            field.schema_type = Type::String.into();
        }
        if body != "body" {
            message.example =
                Some(json!({"body_base64": "aGVsbG8=", "content_type": "text/plain"}));
        }
        schemas.insert(name.to_owned(), message.into());
    };
    let (routing, timeout) = (["routing_key", "mandatory"], ["timeout_seconds"]);
    let (json, bytes) = (["body_base64", "content_type"], ["body"]);
    let gateways = [
        "delay_seconds",
        "deliver_at",
        "ttl_seconds",
        "dedup_id",
        "correlation_id",
        "reply_to",
    ];
    for (message, body, without) in [
        ("Message", "body", json.as_slice()),
        ("BytesMessage", "body_base64", &bytes),
    ] {
        let without = |more: &[&[&'static str]]| [without, &more.concat()].concat();
        add(message, body, &without(&[&routing, &timeout]));
        add(&format!("Routed{message}"), body, &without(&[&timeout]));
        let request = message.replace("Message", "Request");
        add(&request, body, &without(&[&routing, &gateways]));
    }

    let mut choose = |name: &str, parts: &[&str]| {
        let mut one_of = OneOfBuilder::new();
        for part in parts {
            one_of = one_of.item(reference(part));
        }
        schemas.insert(name.to_owned(), RefOr::T(one_of.build().into()));
    };
    choose("AnyMessage", &["Message", "BytesMessage"]);
    choose("AnyRequest", &["Request", "BytesRequest"]);
    choose("Explain", &["RoutedMessage", "RoutedBytesMessage"]);
    choose("Publish", &["Message", "BytesMessage", "MessageBatch"]);
    choose(
        "PublishRouted",
        &["RoutedMessage", "RoutedBytesMessage", "RoutedBatch"],
    );
    for (batch, of) in [("MessageBatch", "AnyMessage"), ("RoutedBatch", "Explain")] {
        let shape = json!({
            "type": "object",
            "description": "1 to 1000 messages, stored all or none.",
            "required": ["messages"],
            "properties": {"messages": {
                "type": "array", "minItems": 1, "maxItems": 1000,
                "items": {"$ref": format!("#/components/schemas/{of}")},
            }},
            "additionalProperties": false,
            "example": {"messages": [{"body": 1}, {"body": 2}]},
        });
        schemas.insert(batch.to_owned(), schema(shape));
    }
}

/// Either ids or a filter.
fn redrive(schemas: &mut Schemas) {
    let Some(RefOr::T(Schema::Object(derived))) = schemas.get("Redrive").cloned() else {
        return;
    };
    let mut one_of = OneOfBuilder::new().examples(derived.example.clone());
    for (name, field, without) in [
        ("RedriveIds", "ids", ["filter", "limit"].as_slice()),
        ("RedriveFilter", "filter", &["ids"]),
    ] {
        let mut redrive = derived.clone();
        redrive.example = None;
        redrive
            .properties
            .retain(|field, _| !without.contains(&field.as_str()));
        redrive.required = vec![field.to_owned()];
        match redrive.properties.get_mut(field) {
            Some(RefOr::T(Schema::Array(Array { schema_type, .. }))) => {
                *schema_type = Type::Array.into();
            }
            Some(filter) => *filter = reference("Filter"),
            None => {}
        }
        schemas.insert(name.to_owned(), redrive.into());
        one_of = one_of.item(reference(name));
    }
    schemas.insert("Redrive".to_owned(), RefOr::T(one_of.build().into()));
}

/// Filters of subscriptions: [`crate::domain::Filter`] reads them.
fn filters(schemas: &mut Schemas) {
    let Some(RefOr::T(Schema::Object(filter))) = schemas.get_mut("SubscriptionFilter") else {
        return;
    };
    filter.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    let mut replace = |name: &str, with: Value| {
        let description = match filter.properties.get(name) {
            Some(RefOr::T(Schema::Object(object))) => object.description.clone(),
            _ => None,
        };
        let mut with = object(with);
        with.description = description;
        filter.properties.insert(name.to_owned(), with.into());
    };
    replace(
        "routing_key",
        json!({"type": ["string", "null"], "maxLength": 255, "pattern": PLAIN}),
    );
    replace(
        "headers",
        json!({
            "type": ["object", "null"], "minProperties": 1, "maxProperties": 64,
            "propertyNames": {"type": "string", "pattern": TOKEN},
            "additionalProperties": {"type": "string", "maxLength": 4096, "pattern": PLAIN},
        }),
    );
    replace(
        "match",
        json!({"type": ["string", "null"], "enum": ["all", "any", null]}),
    );
    let policy = OneOfBuilder::new()
        .item(reference("FilterPolicy"))
        .item(schema(json!({"type": "null"})))
        .description(Some("A filter policy over the JSON body."));
    filter
        .properties
        .insert("body".to_owned(), RefOr::T(policy.build().into()));

    let text = || json!({"type": "string", "minLength": 1, "maxLength": 1024});
    let scalar = || json!({"type": ["string", "number", "boolean", "null"], "maxLength": 1024});
    let named = |name: &str, value: Value| {
        json!({
            "type": "object", "required": [name], "properties": {name: value},
            "additionalProperties": false,
        })
    };
    let operator = |operators: Value| json!({"type": "string", "enum": operators});
    let number = || json!({"type": "number"});
    let numeric = |parts: &[Value]| {
        json!({
            "type": "array", "prefixItems": parts, "items": false,
            "minItems": parts.len(), "maxItems": parts.len(),
        })
    };
    let at_most = [operator(json!(["<", "<=", ">", ">=", "="])), number()];
    let between = [
        operator(json!([">", ">="])),
        number(),
        operator(json!(["<", "<="])),
        number(),
    ];
    let condition = json!({
        "description": "A value that a field may have, or a condition on it.",
        "oneOf": [
            scalar(),
            named("prefix", text()),
            named("suffix", text()),
            named("equals-ignore-case", text()),
            named("exists", json!({"type": "boolean"})),
            named("anything-but", json!({"oneOf": [
                scalar(),
                {"type": "array", "minItems": 1, "items": scalar()},
                named("prefix", text()),
                named("suffix", text()),
            ]})),
            named("numeric", json!({"oneOf": [numeric(&at_most), numeric(&between)]})),
        ],
    });
    schemas.insert("FilterCondition".to_owned(), schema(condition));
    let policy = json!({
        "type": "object",
        "description": "For each name of a field the values it may have, exact or as `prefix`, \
            `suffix`, `equals-ignore-case`, `anything-but`, `numeric`, `exists`; objects nest, \
            up to five in one another. As SNS has it.",
        "minProperties": 1,
        "additionalProperties": {"oneOf": [
            {"type": "array", "minItems": 1,
                "items": {"$ref": "#/components/schemas/FilterCondition"}},
            {"$ref": "#/components/schemas/FilterPolicy"},
        ]},
    });
    schemas.insert("FilterPolicy".to_owned(), schema(policy));
}

/// A merge patch (RFC 7396) holds some fields of the resource, null for those
/// that are to have their defaults.
fn merge_patch(operation: &mut Operation, components: Option<&mut Components>) {
    let (Some(RefOr::T(body)), Some(components)) = (&mut operation.request_body, components) else {
        return;
    };
    for content in body.content.values_mut() {
        if let RefOr::T(Content { schema, .. }) = content
            && let Some(RefOr::Ref(config)) = schema
            && let Some(name) = config.ref_location.rsplit('/').next()
            && let Some(patch) = patch_of(name, &mut components.schemas)
        {
            *schema = Some(reference(&patch));
        }
    }
}

/// Adds the patch of this schema, and of those it holds; its name.
fn patch_of(name: &str, schemas: &mut Schemas) -> Option<String> {
    let patch_name = format!("{}Patch", name.strip_suffix("Config")?);
    let Some(RefOr::T(Schema::Object(config))) = schemas.get(name) else {
        return None;
    };
    let mut patch = config.clone();
    patch.example = None;
    let required = std::mem::take(&mut patch.required);
    for (field, property) in &mut patch.properties {
        // Those have no default.
        if required.contains(field) {
            continue;
        }
        match property {
            RefOr::T(Schema::Object(object)) => {
                object.default = None;
                match &mut object.schema_type {
                    SchemaType::Type(kind) => {
                        object.schema_type = SchemaType::Array(vec![kind.clone(), Type::Null]);
                    }
                    SchemaType::Array(kinds) if !kinds.contains(&Type::Null) => {
                        kinds.push(Type::Null);
                    }
                    _ => {}
                }
            }
            RefOr::Ref(part) => {
                let location = part.ref_location.clone();
                let part_name = location.rsplit('/').next().unwrap_or_default();
                let inner = patch_of(part_name, schemas);
                let part = reference(inner.as_deref().unwrap_or(part_name));
                let nullable = OneOfBuilder::new()
                    .item(part)
                    .item(schema(json!({"type": "null"})));
                *property = RefOr::T(nullable.build().into());
            }
            RefOr::T(_) => {}
        }
    }
    schemas.insert(patch_name.clone(), patch.into());
    Some(patch_name)
}
