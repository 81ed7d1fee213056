//! Properties of whole filters, against matchers written without looking.
