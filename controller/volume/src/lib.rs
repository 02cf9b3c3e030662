//! The volume controllers: binder, attach/detach, protection.
