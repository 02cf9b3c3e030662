//! What a vendor builds a CSI driver on.
