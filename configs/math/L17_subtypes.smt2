; L17: the rules of subtyping are sound, keyword by keyword: ranges that lie within each other, and objects of one
; property k and any others, where presence, required and the rest of the properties are as JSON Schema has them.
; A type is a set of values, here 8 of them.
; code: types.subtype
(set-logic ALL)
(define-sort Type () (_ BitVec 8))
(define-fun sub ((a Type) (b Type)) Bool (= (bvand a (bvnot b)) #x00))
(define-fun has ((t Type) (x Type)) Bool (and (sub x t) (= (bvand x (bvsub x #x01)) #x00) (not (= x #x00))))
(push 1) ; expect unsat: minimum and maximum
(declare-const x Int) (declare-const alo Int) (declare-const ahi Int) (declare-const blo Int) (declare-const bhi Int)
(assert (and (<= blo alo) (<= ahi bhi) (<= alo x) (<= x ahi)))
(assert (not (and (<= blo x) (<= x bhi))))
(check-sat)
(pop 1)
(declare-const ak Type) (declare-const bk Type) (declare-const arest Type) (declare-const brest Type)
(declare-const arequired Bool) (declare-const brequired Bool)
(declare-const present Bool) (declare-const vk Type) (declare-const other Bool) (declare-const vo Type)
(define-fun inside ((k Type) (rest Type) (required Bool)) Bool
  (and (=> required present) (=> present (has k vk)) (=> other (has rest vo))))
(push 1) ; expect unsat: properties, required, additionalProperties
(assert (and (=> brequired arequired) (sub ak bk) (sub arest brest)))
(assert (inside ak arest arequired))
(assert (not (inside bk brest brequired)))
(check-sat)
(pop 1)
(push 1) ; expect sat: comparing named properties only, and not the rest
(assert (and (=> brequired arequired) (sub ak bk)))
(assert (inside ak arest arequired))
(assert (not (inside bk brest brequired)))
(check-sat)
(pop 1)
