//! The CSI sidecars: provisioner, attacher, resizer, registrar and their kin.
