//! Pure volume facts that several parts share.
