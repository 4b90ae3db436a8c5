#!/bin/sh
# The rights of trainer in Kafka. Arguments go to kafka-acls.sh: --bootstrap-server HOST:PORT --command-config FILE
set -eu
server="$*"
# shellcheck disable=SC2086
acls() { kafka-acls.sh $server "$@"; }
acls --add --allow-principal User:trainer --operation Read --topic purchases
acls --add --allow-principal User:trainer --operation DescribeConfigs --topic purchases
acls --add --allow-principal User:trainer --operation Read --topic purchases.dlq
