"""Kafka: the only package that makes confluent_kafka's clients."""
