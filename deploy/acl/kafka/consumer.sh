#!/bin/sh
# The rights of consumer in Kafka. Arguments go to kafka-acls.sh: --bootstrap-server HOST:PORT --command-config FILE
set -eu
server="$*"
# shellcheck disable=SC2086
acls() { kafka-acls.sh $server "$@"; }
acls --add --allow-principal User:consumer --operation Read --topic purchases --group recsys
acls --add --allow-principal User:consumer --operation Write --topic purchases.dlq
acls --add --allow-principal User:consumer --operation DescribeConfigs --topic purchases
