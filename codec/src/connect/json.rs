//! JSON ⇄ protobuf for every method in `proto/`, driven by the descriptors.
//!
//! Promises the canonical proto3 JSON mapping; unknown fields are refused, with the path of the
//! field and a suggestion. A cold path: it allocates, bounded by a small multiple of the request's
//! size. Nesting is bounded by serde_json (128).

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
};

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor,
    ReflectMessage as _, SerializeOptions, Value,
};
use prost_types::method_options::IdempotencyLevel;

use super::{error::put_error_json, explain, resume::Resume};
use crate::{grpc::Status, proto::FILE_DESCRIPTOR_SET};

/// A method of a service.
#[derive(Clone, Debug)]
pub struct MethodInfo {
    /// `/package.Service/Method`, as it stands in the request's path.
    pub path: String,
    /// The request's type.
    pub input: MessageDescriptor,
    /// The response's type.
    pub output: MessageDescriptor,
    /// Whether the client sends a stream.
    pub client_streaming: bool,
    /// Whether the server sends a stream.
    pub server_streaming: bool,
    /// Whether the method is marked `idempotency_level = NO_SIDE_EFFECTS`: it may be called by GET.
    pub no_side_effects: bool,
    /// How a broken stream of this method is resumed.
    resume: Option<Resume>,
}

impl MethodInfo {
    /// Puts the place after which a stream resumes (named by [`JsonCodec::stream_to_json`]) into a
    /// request message, where it replaces the request's own. False: this method's streams cannot be
    /// resumed.
    pub fn resume_after(&self, place: &[u8], request: &mut Vec<u8>) -> bool {
        match &self.resume {
            Some(resume) => {
                resume.put(place, request);
                true
            }
            None => false,
        }
    }
}

/// An error of reading or writing JSON; its sentence names the field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JsonError {
    /// Path of the field in the request, for example `items[0].key`; empty when the text is not
    /// JSON.
    pub field: String,
    /// The fault, and what is allowed.
    pub message: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "field \"{}\": {}", self.field, self.message)
    }
}

impl std::error::Error for JsonError {}

/// A transcoder of requests and responses. Made once and shared: it is `Send + Sync` and cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct JsonCodec {
    pool: DescriptorPool,
    methods: Arc<HashMap<String, MethodInfo>>,
}

impl JsonCodec {
    /// The codec that the whole process shares, made on first use (some milliseconds).
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<JsonCodec> = LazyLock::new(JsonCodec::new);
        &SHARED
    }

    /// Makes a codec for all services of `proto/`.
    pub fn new() -> Self {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("build.rs made the descriptor set");
        let mut methods = HashMap::new();
        for method in pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let info = MethodInfo {
                path: path.clone(),
                input: method.input(),
                output: method.output(),
                client_streaming: method.is_client_streaming(),
                server_streaming: method.is_server_streaming(),
                no_side_effects: has_no_side_effects(&method),
                resume: method
                    .is_server_streaming()
                    .then(|| Resume::of(&method.input(), &method.output()))
                    .flatten(),
            };
            methods.insert(path, info);
        }
        JsonCodec {
            pool,
            methods: Arc::new(methods),
        }
    }

    /// The method at a request's path, for example `/prism.keyvalue.v1.KeyValue/Put`.
    pub fn method(&self, path: &str) -> Option<&MethodInfo> {
        self.methods.get(path)
    }

    /// All methods, in no particular order.
    pub fn methods(&self) -> impl Iterator<Item = &MethodInfo> {
        self.methods.values()
    }

    /// The descriptors of everything in `proto/`.
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// Appends the protobuf form of a JSON request. An empty body counts as `{}`. On an error `out`
    /// is as it was.
    pub fn request_to_proto(
        &self,
        method: &MethodInfo,
        json: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        self.json_to_proto(&method.input, json, out)
    }

    /// Appends the JSON form of a protobuf response.
    pub fn response_to_json(
        &self,
        method: &MethodInfo,
        proto: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        self.proto_to_json(&method.output, proto, out).map(|_| ())
    }

    /// Appends the JSON form of one response of a stream, and returns the place after it from which
    /// the stream can be resumed; empty if it cannot.
    pub fn stream_to_json(
        &self,
        method: &MethodInfo,
        proto: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Vec<u8>, JsonError> {
        let message = self.proto_to_json(&method.output, proto, out)?;
        Ok(method
            .resume
            .as_ref()
            .map(|resume| resume.place_after(&message))
            .unwrap_or_default())
    }

    /// Appends the JSON form of a protobuf request, for clients.
    pub fn request_to_json(
        &self,
        method: &MethodInfo,
        proto: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        self.proto_to_json(&method.input, proto, out).map(|_| ())
    }

    /// Appends the JSON body of a Connect error; details of known types are spelled out as `debug`.
    pub fn error_json(&self, status: &Status, out: &mut Vec<u8>) {
        put_error_json(status, out, |any| {
            let descriptor = self.any_descriptor(&any.type_url)?;
            let message = DynamicMessage::decode(descriptor, any.value.as_slice()).ok()?;
            serde_json::to_value(&message).ok()
        });
    }

    fn json_to_proto(
        &self,
        descriptor: &MessageDescriptor,
        json: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let json = json.trim_ascii();
        if json.is_empty() {
            return Ok(());
        }
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let message =
            DynamicMessage::deserialize_with_options(descriptor.clone(), &mut deserializer, &options)
                .and_then(|message| deserializer.end().map(|()| message));
        match message {
            Ok(message) => {
                message.encode(out).expect("a Vec takes everything");
                Ok(())
            }
            Err(error) => Err(explain::explain(descriptor, json, &error)),
        }
    }

    fn proto_to_json(
        &self,
        descriptor: &MessageDescriptor,
        proto: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<DynamicMessage, JsonError> {
        let whole = |message: String| JsonError {
            field: String::new(),
            message,
        };
        let mut message =
            DynamicMessage::decode(descriptor.clone(), proto).map_err(|error| whole(error.to_string()))?;
        let before = out.len();
        let options = SerializeOptions::new();
        if message
            .serialize_with_options(&mut serde_json::Serializer::new(&mut *out), &options)
            .is_ok()
        {
            return Ok(message);
        }
        // The usual cause is an Any of a type that this gateway does not know; the rest of the
        // response is worth more.
        self.drop_unknown_any(&mut message);
        out.truncate(before);
        let written = message.serialize_with_options(&mut serde_json::Serializer::new(&mut *out), &options);
        match written {
            Ok(()) => Ok(message),
            Err(error) => {
                out.truncate(before);
                Err(whole(error.to_string()))
            }
        }
    }

    fn any_descriptor(&self, type_url: &str) -> Option<MessageDescriptor> {
        self.pool
            .get_message_by_name(type_url.rsplit('/').next().unwrap_or_default())
    }

    /// Removes every Any that cannot be written as JSON, from lists and fields, at any depth.
    fn drop_unknown_any(&self, message: &mut DynamicMessage) {
        let mut emptied = Vec::new();
        for (field, value) in message.fields_mut() {
            match value {
                Value::Message(inner) if !self.is_writable(inner) => emptied.push(field),
                Value::Message(inner) => self.drop_unknown_any(inner),
                Value::List(list) => {
                    list.retain(|element| element.as_message().is_none_or(|inner| self.is_writable(inner)));
                    for inner in list.iter_mut().filter_map(Value::as_message_mut) {
                        self.drop_unknown_any(inner);
                    }
                }
                _ => {}
            }
        }
        for field in emptied {
            message.clear_field(&field);
        }
    }

    /// False only for an Any that does not serialize.
    fn is_writable(&self, message: &DynamicMessage) -> bool {
        message.descriptor().full_name() != "google.protobuf.Any" || serde_json::to_value(message).is_ok()
    }
}

fn has_no_side_effects(method: &MethodDescriptor) -> bool {
    method
        .method_descriptor_proto()
        .options
        .as_ref()
        .is_some_and(|options| options.idempotency_level() == IdempotencyLevel::NoSideEffects)
}

impl Default for JsonCodec {
    fn default() -> Self {
        JsonCodec::new()
    }
}
