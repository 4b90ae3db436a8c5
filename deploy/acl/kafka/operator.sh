#!/bin/sh
# The rights of operator in Kafka. Arguments go to kafka-acls.sh: --bootstrap-server HOST:PORT --command-config FILE
set -eu
server="$*"
# shellcheck disable=SC2086
acls() { kafka-acls.sh $server "$@"; }
acls --add --allow-principal User:operator --operation Read --topic purchases --group recsys
acls --add --allow-principal User:operator --operation DescribeConfigs --topic purchases
acls --add --allow-principal User:operator --operation Read --topic purchases.dlq
acls --add --allow-principal User:operator --operation Write --topic purchases
