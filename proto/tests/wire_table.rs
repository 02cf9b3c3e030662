//! The compiled descriptors say exactly what the table of names and numbers says.
//!
//! `csi_1_12.txt` has one line for each message, field, enum value, call and extension of CSI 1.12, sorted. A field
//! renumbered, renamed, retyped or stripped of its `csi_secret` mark shows as a differing line.

use std::collections::BTreeSet;

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
};

const PACKAGE: &str = "csi.v1.";
const TABLE: &str = include_str!("csi_1_12.txt");

fn pool() -> DescriptorPool {
    DescriptorPool::decode(moorline_proto::DESCRIPTORS).unwrap()
}

/// The names of the markers set on something, with a space before each.
fn markers(options: &DynamicMessage) -> String {
    let mut names: Vec<String> = options
        .extensions()
        .filter(|(_, value)| value.as_bool() == Some(true))
        .map(|(e, _)| e.name().to_owned())
        .collect();
    names.sort();
    names.iter().map(|name| format!(" {name}")).collect()
}

fn local(full_name: &str) -> &str {
    full_name.strip_prefix(PACKAGE).unwrap_or(full_name)
}

fn type_name(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        Kind::Double | Kind::Float | Kind::Fixed32 | Kind::Fixed64 | Kind::Sfixed32 | Kind::Sfixed64 => {
            panic!("{} has a kind that CSI does not use", field.full_name())
        }
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn field_line(field: &FieldDescriptor) -> String {
    let repeated = if field.cardinality() == Cardinality::Repeated {
        "repeated "
    } else {
        ""
    };
    let oneof = field
        .containing_oneof()
        .map(|oneof| format!(" oneof={}", oneof.name()))
        .unwrap_or_default();
    let deprecated = field
        .field_descriptor_proto()
        .options
        .as_ref()
        .is_some_and(|options| options.deprecated());
    format!(
        "field {} {} {repeated}{}{oneof}{}{}",
        local(field.full_name()),
        field.number(),
        type_name(field),
        markers(&field.options()),
        if deprecated { " deprecated" } else { "" },
    )
}

fn message_lines(message: &MessageDescriptor, lines: &mut BTreeSet<String>) {
    if !message.is_map_entry() {
        let alpha = if markers(&message.options()).is_empty() {
            ""
        } else {
            " alpha"
        };
        lines.insert(format!("message {}{alpha}", local(message.full_name())));
    }
    lines.extend(message.fields().map(|field| field_line(&field)));
}

fn enum_lines(values: &EnumDescriptor, lines: &mut BTreeSet<String>) {
    for value in values.values() {
        let name = format!("{}.{}", local(values.full_name()), value.name());
        lines.insert(format!(
            "value {name} {}{}",
            value.number(),
            markers(&value.options())
        ));
    }
}

fn compiled_lines() -> BTreeSet<String> {
    let pool = pool();
    let mut lines = BTreeSet::new();
    for message in pool
        .all_messages()
        .filter(|message| message.package_name() == "csi.v1")
    {
        message_lines(&message, &mut lines);
    }
    for values in pool
        .all_enums()
        .filter(|values| values.package_name() == "csi.v1")
    {
        enum_lines(&values, &mut lines);
    }
    for service in pool
        .services()
        .filter(|service| service.package_name() == "csi.v1")
    {
        for method in service.methods() {
            let stream = if method.is_server_streaming() {
                "stream "
            } else {
                ""
            };
            let (input, output) = (method.input(), method.output());
            let options = markers(&method.options());
            lines.insert(format!(
                "rpc {}.{} {} {stream}{}{options}",
                service.name(),
                method.name(),
                input.name(),
                output.name()
            ));
        }
    }
    for extension in pool.all_extensions() {
        let of = extension.containing_message();
        lines.insert(format!(
            "extension {} {} {}",
            extension.name(),
            extension.number(),
            of.full_name()
        ));
    }
    lines
}

#[test]
fn csi_descriptors_match_the_table_of_names_and_numbers() {
    let expected: BTreeSet<String> = TABLE.lines().map(str::to_owned).collect();
    let compiled = compiled_lines();
    let missing: Vec<_> = expected.difference(&compiled).collect();
    let surplus: Vec<_> = compiled.difference(&expected).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "missing: {missing:#?}\nsurplus: {surplus:#?}"
    );
}

#[test]
fn plugin_registration_has_its_published_names_and_numbers() {
    let pool = pool();
    let numbers = |message: &str| -> Vec<(u32, String)> {
        let message = pool
            .get_message_by_name(&format!("pluginregistration.{message}"))
            .unwrap();
        message
            .fields()
            .map(|field| (field.number(), field.name().to_owned()))
            .collect()
    };
    let row = |number: u32, name: &str| (number, name.to_owned());
    assert_eq!(
        numbers("PluginInfo"),
        [
            row(1, "type"),
            row(2, "name"),
            row(3, "endpoint"),
            row(4, "supported_versions")
        ]
    );
    assert_eq!(
        numbers("RegistrationStatus"),
        [row(1, "plugin_registered"), row(2, "error")]
    );
    assert!(numbers("InfoRequest").is_empty() && numbers("RegistrationStatusResponse").is_empty());
    let service = pool
        .get_service_by_name("pluginregistration.Registration")
        .unwrap();
    let calls: Vec<_> = service.methods().map(|method| method.name().to_owned()).collect();
    assert_eq!(calls, ["GetInfo", "NotifyRegistrationStatus"]);
}

#[test]
fn a_message_with_secrets_does_not_print_them() {
    let request = moorline_proto::csi::NodeStageVolumeRequest {
        volume_id: "v1".into(),
        secrets: [("password".into(), "hunter2".into())].into(),
        ..Default::default()
    };
    let printed = format!("{request:?}");
    assert!(
        printed.contains("v1") && printed.contains("***stripped***"),
        "{printed}"
    );
    assert!(
        !printed.contains("hunter2") && !printed.contains("password"),
        "{printed}"
    );
}
