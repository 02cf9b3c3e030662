//! Compiles the wire contracts without an installed protoc.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

use prost_reflect::{DescriptorPool, MessageDescriptor};

const FILES: [&str; 2] = ["csi.proto", "pluginregistration.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=wire");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["wire"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;
    let pool = compiler.descriptor_pool();
    fs::write(out.join("descriptors.bin"), pool.encode_to_vec())?;

    // A message with a secret gets no derived Debug: it can't be logged by accident.
    let secret = messages_with_secrets(&pool);
    let mut builder = tonic_prost_build::configure();
    for message in &secret {
        builder = builder.skip_debug([format!(".{}", message.full_name())]);
    }
    builder.compile_fds(compiler.file_descriptor_set())?;
    fs::write(out.join("redacted_debug.rs"), redacted_debug(&secret)?)?;
    Ok(())
}

fn is_secret(field: &prost_reflect::FieldDescriptor) -> bool {
    let Some(option) = field.parent_pool().get_extension_by_name("csi.v1.csi_secret") else {
        return false;
    };
    field.options().get_extension(&option).as_bool().unwrap_or(false)
}

fn messages_with_secrets(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    pool.all_messages()
        .filter(|message| message.fields().any(|field| is_secret(&field)))
        .collect()
}

/// `Debug` for the messages with secrets: every field but those.
fn redacted_debug(messages: &[MessageDescriptor]) -> Result<String, std::fmt::Error> {
    let mut code = String::new();
    for message in messages {
        let name = message.name();
        writeln!(code, "impl ::core::fmt::Debug for {name} {{")?;
        writeln!(
            code,
            "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{"
        )?;
        writeln!(code, "        f.debug_struct(\"{name}\")")?;
        for field in message.fields() {
            let field_name = field.name();
            if is_secret(&field) {
                writeln!(
                    code,
                    "            .field(\"{field_name}\", &::core::format_args!(\"***stripped***\"))"
                )?;
            } else {
                writeln!(code, "            .field(\"{field_name}\", &self.{field_name})")?;
            }
        }
        writeln!(code, "            .finish()\n    }}\n}}")?;
    }
    Ok(code)
}
