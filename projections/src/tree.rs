//! A persistent ordered map with structural sharing.
