//! Compiles `proto/` without protoc: prost types for the cold paths, the descriptor set for
//! reflection and JSON, and the table of methods.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

use prost_reflect::{
    DescriptorPool, DynamicMessage, MethodDescriptor, ReflectMessage as _, ServiceDescriptor, Value,
};

const FILES: &[&str] = &[
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "prism/admin/v1/dead_letters.proto",
    "prism/admin/v1/namespaces.proto",
    "prism/common/v1/common.proto",
    "prism/keyvalue/v1/keyvalue.proto",
    "prism/options.proto",
    "prism/pubsub/v1/pubsub.proto",
    "prism/queue/v1/queue.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("../proto");
    println!("cargo:rerun-if-changed=../proto");
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(FILES.iter().map(|file| root.join(file)))?;
    // Encoded by protox, not by prost-types, which would lose the custom options.
    let descriptors = compiler.encode_file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("prism.fds"), &descriptors)?;
    let pool = DescriptorPool::decode(descriptors.as_slice())?;
    fs::write(out.join("methods.rs"), method_table(&pool)?)?;
    let mut config = prost_build::Config::new();
    config.include_file("proto.rs");
    // Sorted by name, so that equal messages have equal bytes.
    config.btree_map([".prism.pubsub", ".prism.queue"]);
    config.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Source of the table that `src/method.rs` includes: an enum for each service, one of all of them,
/// and their rows.
fn method_table(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let services: Vec<_> = pool.services().collect();
    let mut code = String::new();
    for service in &services {
        service_enum(&mut code, pool, service)?;
    }
    let each = |form: &dyn Fn(&str) -> String| -> String {
        services.iter().map(|service| form(service.name())).collect()
    };
    writeln!(
        code,
        "/// A service of `proto/`.
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
         #[repr(u8)]
         pub enum Api {{ {variants} }}
         impl Api {{
             /// All services.
             pub const ALL: &'static [Self] = &[{all}];
             /// The rows of its methods, in the order of their indexes.
             #[inline]
             pub const fn methods(self) -> &'static [MethodSpec] {{ match self {{ {rows} }} }}
             /// The full name, for example `prism.keyvalue.v1.KeyValue`.
             pub const fn service(self) -> &'static str {{ match self {{ {names} }} }}
             /// The method with this index, if there is one.
             pub fn method(self, index: usize) -> Option<Method> {{ match self {{ {of_index} }} }}
         }}
         /// A method of any service: two bytes.
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
         pub enum Method {{ {methods} }}
         impl Method {{
             /// The service.
             #[inline]
             pub const fn api(self) -> Api {{ match self {{ {apis} }} }}
             /// The place among the methods of its service.
             #[inline]
             pub const fn index(self) -> usize {{ match self {{ {indexes} }} }}
             /// The method's row.
             #[inline]
             pub const fn spec(self) -> &'static MethodSpec {{ match self {{ {specs} }} }}
         }}",
        variants = each(&|name| format!("/// `{name}`.\n{name}, ")),
        all = each(&|name| format!("Self::{name}, ")),
        rows = each(&|name| format!("Self::{name} => {name}Method::ROWS, ")),
        names = services
            .iter()
            .map(|service| format!("Self::{} => {:?}, ", service.name(), service.full_name()))
            .collect::<String>(),
        of_index = each(&|name| format!(
            "Self::{name} => {name}Method::ALL.get(index).map(|method| Method::{name}(*method)), "
        )),
        methods = each(&|name| format!("/// Of `{name}`.\n{name}({name}Method), ")),
        apis = each(&|name| format!("Self::{name}(_) => Api::{name}, ")),
        specs = each(&|name| format!("Self::{name}(method) => method.spec(), ")),
        indexes = each(&|name| format!("Self::{name}(method) => method as usize, ")),
    )?;
    Ok(code)
}

fn service_enum(
    code: &mut String,
    pool: &DescriptorPool,
    service: &ServiceDescriptor,
) -> Result<(), Box<dyn Error>> {
    let (name, full_name) = (service.name(), service.full_name());
    let (mut variants, mut all, mut rows) = (String::new(), String::new(), String::new());
    for method in service.methods() {
        write!(variants, "/// `{0}`.\n{0}, ", method.name())?;
        write!(all, "Self::{}, ", method.name())?;
        write!(rows, "{}, ", row(pool, &method)?)?;
    }
    writeln!(
        code,
        "/// The methods of `{full_name}`.
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
         #[repr(u8)]
         pub enum {name}Method {{ {variants} }}
         impl {name}Method {{
             /// All of them, in the order of their indexes.
             pub const ALL: &'static [Self] = &[{all}];
             const ROWS: &'static [MethodSpec] = &[{rows}];
             /// The method's row.
             #[inline]
             pub const fn spec(self) -> &'static MethodSpec {{ &Self::ROWS[self as usize] }}
         }}
         impl From<{name}Method> for Method {{
             fn from(method: {name}Method) -> Self {{ Self::{name}(method) }}
         }}"
    )?;
    Ok(())
}

/// One row of the table. The option `prism.call` of the rpc says what the method demands and does;
/// published interfaces of others lack it and need nothing.
fn row(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<String, Box<dyn Error>> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let shape = match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => "Unary",
        (false, true) => "Stream",
        (true, true) => "Dialogue",
        (true, false) => return Err(format!("{path}: a stream from the client alone is not served").into()),
    };
    let option = pool
        .get_extension_by_name("prism.call")
        .ok_or("proto/prism/options.proto defines no prism.call")?;
    let options = method.options();
    let (permissions, effect) = if options.has_extension(&option) {
        let value = options.get_extension(&option);
        let call = value.as_message().ok_or("prism.call is no message")?;
        (permissions_of(call, &path)?, effect_of(call, &path)?)
    } else if path.starts_with("/prism.") {
        return Err(
            format!("{path}: say `option (prism.call)`: which permissions it needs, what it does").into(),
        );
    } else {
        ("Permissions::NONE".to_owned(), "None".to_owned())
    };
    Ok(format!(
        "MethodSpec {{ name: {:?}, path: {path:?}, permissions: {permissions}, shape: Shape::{shape}, effect: Effect::{effect} }}",
        method.name()
    ))
}

/// Name of an enum's value without the enum's own name, as Rust spells it: `PERMISSION_READ` is
/// `Read`.
fn value_name(
    call: &DynamicMessage,
    field: &str,
    value: &Value,
    path: &str,
) -> Result<String, Box<dyn Error>> {
    let field = call
        .descriptor()
        .get_field_by_name(field)
        .ok_or("prism.Call lacks a field")?;
    let kind = field.kind();
    let of = kind.as_enum().ok_or("a field of prism.Call is no enum")?;
    let number = value.as_enum_number().ok_or("a field of prism.Call is no enum")?;
    let name = of.get_value(number).filter(|_| number != 0);
    let name = name.ok_or_else(|| format!("{path}: prism.call holds a {} that is not known", of.name()))?;
    let short = name.name().rsplit('_').next().unwrap_or_default().to_lowercase();
    let (first, rest) = short.split_at(1);
    Ok(first.to_uppercase() + rest)
}

fn permissions_of(call: &DynamicMessage, path: &str) -> Result<String, Box<dyn Error>> {
    let value = call
        .get_field_by_name("permissions")
        .ok_or("prism.Call lacks permissions")?;
    let mut code = "Permissions::NONE".to_owned();
    for one in value.as_list().unwrap_or_default() {
        let name = value_name(call, "permissions", one, path)?.to_uppercase();
        write!(code, ".and(Permissions::{name})")?;
    }
    Ok(code)
}

fn effect_of(call: &DynamicMessage, path: &str) -> Result<String, Box<dyn Error>> {
    let value = call
        .get_field_by_name("effect")
        .ok_or("prism.Call lacks an effect")?;
    value_name(call, "effect", &value, path)
}
