"""HTTP on both sides: problems and request ids for servers, a patient client for calls between services."""
