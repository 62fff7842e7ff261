//! Server reflection (v1, and v1alpha, which has the same messages): lets tools such as grpcurl
//! discover the services.
//!
//! Descriptors are returned as they were compiled, byte for byte, so that custom options survive.

use std::sync::LazyLock;

use prism_codec::{
    grpc::{Code, Status},
    proto::{
        FILE_DESCRIPTOR_SET,
        grpc::reflection::v1::{
            ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
            ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        },
    },
};
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto};

use crate::call::error;

/// Largest request in bytes: names are short.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Answers one request message. The response is put into `out`.
pub(crate) fn answer(message: &[u8], alpha: bool, out: &mut Vec<u8>) -> Result<(), Box<Status>> {
    let request = ServerReflectionRequest::decode(message)
        .map_err(|_| error::status(Code::InvalidArgument, "not a ServerReflectionRequest"))?;
    let files = &*FILES;
    let response = match &request.message_request {
        Some(MessageRequest::ListServices(_)) => files.list_services(alpha),
        Some(MessageRequest::FileByFilename(name)) => files.with_imports(|file| file.name == *name),
        Some(MessageRequest::FileContainingSymbol(symbol)) => {
            let wanted = if alpha {
                symbol.replace("grpc.reflection.v1alpha.", "grpc.reflection.v1.")
            } else {
                symbol.clone()
            };
            files.with_imports(|file| file.symbols.contains(&wanted))
        }
        Some(MessageRequest::FileContainingExtension(extension)) => {
            let wanted = (extension.containing_type.as_str(), extension.extension_number);
            files.with_imports(|file| {
                file.extensions
                    .iter()
                    .any(|(of, number)| (of.as_str(), *number) == wanted)
            })
        }
        Some(MessageRequest::AllExtensionNumbersOfType(of)) => files.extension_numbers(of),
        None => not_found("the request asks for nothing"),
    };
    let response = ServerReflectionResponse {
        valid_host: request.host.clone(),
        original_request: Some(request),
        message_response: Some(response),
    };
    out.clear();
    // A Vec grows as needed, so encoding into it cannot fail.
    let _ = response.encode(out);
    Ok(())
}

static FILES: LazyLock<Files> = LazyLock::new(|| Files::parse(FILE_DESCRIPTOR_SET));

struct Files(Vec<File>);

struct File {
    name: String,
    bytes: Vec<u8>,
    imports: Vec<String>,
    symbols: Vec<String>,
    services: Vec<String>,
    /// (extended message, field number)
    extensions: Vec<(String, i32)>,
}

/// A `FileDescriptorSet` with its files kept as bytes: same field number, another type.
#[derive(Clone, PartialEq, Message)]
struct RawSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

impl Files {
    fn parse(set: &[u8]) -> Self {
        let raw = RawSet::decode(set).expect("the build made this descriptor set");
        Self(raw.file.into_iter().map(File::parse).collect())
    }

    fn list_services(&self, alpha: bool) -> MessageResponse {
        let service = self
            .0
            .iter()
            .flat_map(|file| &file.services)
            .map(|name| ServiceResponse {
                name: if alpha {
                    name.replace("grpc.reflection.v1.", "grpc.reflection.v1alpha.")
                } else {
                    name.clone()
                },
            })
            .collect();
        MessageResponse::ListServicesResponse(ListServiceResponse { service })
    }

    fn with_imports(&self, is_wanted: impl Fn(&File) -> bool) -> MessageResponse {
        let Some(first) = self.0.iter().find(|file| is_wanted(file)) else {
            return not_found("no such file, symbol or extension");
        };
        let mut chosen = vec![first];
        let mut next = 0;
        while next < chosen.len() {
            for import in &chosen[next].imports {
                if let Some(file) = self.0.iter().find(|file| file.name == *import)
                    && !chosen.iter().any(|known| known.name == file.name)
                {
                    chosen.push(file);
                }
            }
            next += 1;
        }
        MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
            file_descriptor_proto: chosen.into_iter().map(|file| file.bytes.clone()).collect(),
        })
    }

    fn extension_numbers(&self, of: &str) -> MessageResponse {
        let extension_number: Vec<i32> = self
            .0
            .iter()
            .flat_map(|file| &file.extensions)
            .filter(|(extended, _)| extended == of)
            .map(|(_, number)| *number)
            .collect();
        let is_known = self
            .0
            .iter()
            .any(|file| file.symbols.iter().any(|symbol| symbol == of));
        if !is_known {
            return not_found("no such type");
        }
        MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
            base_type_name: of.to_owned(),
            extension_number,
        })
    }
}

impl File {
    fn parse(bytes: Vec<u8>) -> Self {
        let file = FileDescriptorProto::decode(bytes.as_slice()).expect("the build made this descriptor");
        let package = file.package().to_owned();
        let full = |name: &str| {
            if package.is_empty() {
                name.to_owned()
            } else {
                format!("{package}.{name}")
            }
        };
        let mut symbols = Vec::new();
        for message in &file.message_type {
            collect(message, &full(message.name()), &mut symbols);
        }
        symbols.extend(file.enum_type.iter().map(|kind| full(kind.name())));
        let services: Vec<String> = file.service.iter().map(|service| full(service.name())).collect();
        for (service, name) in file.service.iter().zip(&services) {
            symbols.push(name.clone());
            symbols.extend(
                service
                    .method
                    .iter()
                    .map(|method| format!("{name}.{}", method.name())),
            );
        }
        let extensions = file
            .extension
            .iter()
            .map(|field| {
                (
                    field.extendee().trim_start_matches('.').to_owned(),
                    field.number(),
                )
            })
            .collect();
        symbols.extend(file.extension.iter().map(|field| full(field.name())));
        Self {
            name: file.name().to_owned(),
            imports: file.dependency.clone(),
            bytes,
            symbols,
            services,
            extensions,
        }
    }
}

fn collect(message: &DescriptorProto, name: &str, symbols: &mut Vec<String>) {
    symbols.push(name.to_owned());
    symbols.extend(
        message
            .field
            .iter()
            .map(|field| format!("{name}.{}", field.name())),
    );
    symbols.extend(
        message
            .enum_type
            .iter()
            .map(|kind| format!("{name}.{}", kind.name())),
    );
    for nested in &message.nested_type {
        collect(nested, &format!("{name}.{}", nested.name()), symbols);
    }
}

fn not_found(message: &str) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse {
        error_code: Code::NotFound as i32,
        error_message: message.to_owned(),
    })
}
